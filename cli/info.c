/* info.c - `halftone info`: what a model is, which stages its graph falls into, and which kernel each operation got. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/text.h"

typedef struct info_settings {
    const char *model, *component;
    int64_t batch;
    option_size size;
    run_settings run;
    bool kernels, layers, json;
} info_settings;

#define AT(member) .at = offsetof(info_settings, member)

/* clang-format off */
static const option info_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, that of one of its components, or a calibration file"},
    {.name = "layers", .letter = 'l', .type = OPTION_FLAG, AT(layers),
     .help = "each quantized layer: formats, bits, size, error"},
    {.name = "kernels", .letter = 'k', .type = OPTION_FLAG, AT(kernels),
     .help = "each operation: stage, shape, kernel, and why better kernels refused"},
    {.name = "component", .argument = "NAME", .type = OPTION_TEXT, AT(component), .help = "part of a pipeline, as unet; default: its denoiser"},
    {.name = "size", .argument = "WxH", .type = OPTION_SIZE, AT(size), .min = 1, .max = 16384, .help = "of the sample; default: the model's own"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .min = 1, .max = 4096, .initial = "1", .help = "images at once"},
    RUN_OPTIONS(info_settings),
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object"},
    {0}};
/* clang-format on */

/* How often a stage runs, in the order of execution. */
static const struct {
    const char *stage, *runs;
} stages[] = {{"once", "once a model"},
              {"t", "once a timestep of the schedule"},
              {"cond", "once a condition"},
              {"t,cond", "once a timestep and condition"},
              {"step", "every step"}};
enum { STAGES = sizeof stages / sizeof *stages };

typedef struct totals {
    int ops[STAGES];
    double macs[STAGES];
} totals;

static totals count_stages(const ht_session *session, int ops)
{
    totals sum = {0};
    for (int i = 0; i < ops; i++) {
        ht_op_info op;
        ht_session_op(session, i, &op);
        for (int k = 0; k < STAGES; k++) {
            if (!strcmp(stages[k].stage, op.stage)) {
                sum.ops[k]++;
                sum.macs[k] += op.macs;
            }
        }
    }
    return sum;
}

/* ---- for people ---- */

static void print_model(const char *path, const ht_model_info *m)
{
    text_print(path);
    printf(": %s\n  scheduler    ", m->class_name);
    text_print(m->scheduler ? m->scheduler : "none; DDIM with its defaults is used");
    printf("\n  sampler      %s, %s spacing\n", m->sampler, m->spacing);
    if (m->decoder)
        printf("  decoder      %s: samples are latents\n", m->decoder);
    printf("  sample       %dx%d, %d channels; %d out\n", m->width, m->height, m->in_channels, m->out_channels);
    if (m->takes_class && m->num_classes)
        printf("  classes      %d\n", m->num_classes);
    else if (m->takes_class)
        printf("  classes      numbers, embedded like a timestep\n");
    if (m->class_embed_dim)
        printf("  classes      as embeddings of %d\n", m->class_embed_dim);
    printf("  parameters   %" PRId64 ", %.1f MB as stored\n", m->parameters, (double)m->weight_bytes * 1e-6);
    if (m->layers)
        printf("  quantized    %d layers, %.2f bits a weight, softmax in %s\n", m->layers, m->average_bits, m->softmax);
}

/* 1523400000 as "1.523 G". */
static const char *count_text(double count, char *buffer, size_t size)
{
    const char *unit = count >= 1e9 ? "G" : count >= 1e6 ? "M" : count >= 1e3 ? "k" : "";
    double scale = count >= 1e9 ? 1e9 : count >= 1e6 ? 1e6 : count >= 1e3 ? 1e3 : 1;
    snprintf(buffer, size, "%.4g %s", count / scale, unit);
    return buffer;
}

static void print_session(const ht_session *session, const ht_session_info *s)
{
    totals sum = count_stages(session, s->ops);
    char macs[32];
    printf("\non %s (%s, %d thread%s), batch %d, %dx%d\n", s->backend, s->isa, s->threads, s->threads == 1 ? "" : "s",
           s->batch, s->width, s->height);
    printf("  memory       %.1f MB of weights as packed, %.1f MB of activations\n", (double)s->packed_bytes * 1e-6,
           (double)s->activation_bytes * 1e-6);
    printf("  stage      ops   MACs/image  runs\n");
    for (int k = 0; k < STAGES; k++)
        if (sum.ops[k])
            printf("  %-8s %5d  %11s  %s\n", stages[k].stage, sum.ops[k], count_text(sum.macs[k], macs, sizeof macs),
                   stages[k].runs);
}

static void print_kernels(const ht_session *session, int ops)
{
    printf("\n  %-6s %-14s %-44s %-52s kernel\n", "stage", "op", "name", "shape");
    for (int i = 0; i < ops; i++) {
        ht_op_info op;
        ht_session_op(session, i, &op);
        printf("  %-6s %-14s %-44s %-52s %s%s%s%s\n", op.stage, op.kind, op.name, op.shape, op.kernel,
               *op.refused ? " (" : "", op.refused, *op.refused ? ")" : "");
    }
}

/* ---- quantized layers ---- */

/* Bits of a weight times bits of an input, for each multiply-accumulate of an image: what a bit-serial machine would
 * do.  Inputs that stay floats count 32; weights that are not quantized, and attention, 16. */
static double bit_operations(const ht_model *model, const ht_session *session, const ht_model_info *m, int ops)
{
    double sum = 0;
    for (int i = 0; i < ops; i++) {
        ht_op_info op;
        double weight = 16, input = 32;
        ht_session_op(session, i, &op);
        for (int k = 0; k < m->layers; k++) {
            ht_layer_info layer;
            ht_model_get_layer(model, k, &layer);
            if (strcmp(layer.name, op.layer) != 0)
                continue;
            weight = layer.weight_bits;
            input = layer.input_bits;
        }
        sum += op.macs * weight * input;
    }
    return sum;
}

static void print_layers(const ht_model *model, const ht_model_info *m, double bops)
{
    int64_t weights = 0;
    double bytes = 0;
    char text[32];
    printf("\n  %-44s %-10s %-9s %-8s %6s %6s %6s %5s %10s %7s  %s\n", "layer", "weights", "inputs", "scales", "groups",
           "parts", "smooth", "rank", "bytes", "bits", "error");
    for (int i = 0; i < m->layers; i++) {
        ht_layer_info l;
        ht_model_get_layer(model, i, &l);
        printf("  %-44s %-10s %-9s %-8s %6d %6d %6s %5d %10.0f %7.3f  ", l.name, l.format, l.input, l.input_mode,
               l.groups, l.parts, l.smooth ? "yes" : "-", l.rank, l.bits * (double)l.weights / 8, l.bits);
        printf(l.error >= 0 ? "%.2e\n" : "\n", l.error);
        weights += l.weights;
        bytes += l.bits * (double)l.weights / 8;
    }
    printf("  %d layers: %.3f MB, %.3f bits a weight; all weights %.3f MB, %.3f bits; %s bit operations an image\n",
           m->layers, bytes * 1e-6, weights ? 8 * bytes / (double)weights : 0, (double)m->weight_bytes * 1e-6,
           m->average_bits, count_text(bops, text, sizeof text));
}

static json_t *layers_json(const ht_model *model, const ht_model_info *m)
{
    json_t *list = json_array();
    for (int i = 0; i < m->layers; i++) {
        ht_layer_info l;
        ht_model_get_layer(model, i, &l);
        json_t *e = json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:b, s:i, s:I, s:f}", "name", l.name, "format", l.format,
                              "input", l.input, "input_mode", l.input_mode, "groups", l.groups, "parts", l.parts,
                              "smooth", l.smooth, "rank", l.rank, "weights", (json_int_t)l.weights, "bits", l.bits);
        if (l.error >= 0)
            json_object_set_new(e, "error", json_real(l.error));
        json_array_append_new(list, e);
    }
    return list;
}

/* ---- a calibration ---- */

static void print_calibration(const char *path, const json_t *c)
{
    const json_t *timesteps = json_object_get(c, "timesteps"), *each = json_object_get(c, "samples_each"), *in;
    size_t i, n = json_array_size(timesteps), last = n - 1;
    char *settings = json_dumps(json_object_get(c, "settings"), JSON_COMPACT);
    text_print(path);
    printf(": a calibration\n  settings     ");
    text_print(settings ? settings : "");
    printf("\n  weights      SHA-256 %s\n  samples      %lld at %zu timesteps\n",
           json_string_value(json_object_get(c, "model")), (long long)json_integer_value(json_object_get(c, "samples")),
           n);
    for (i = 0; i < n; i++)
        printf("%s%g (%lld)", i ? ", " : "  timesteps    ", json_number_value(json_array_get(timesteps, i)),
               (long long)json_integer_value(json_array_get(each, i)));
    printf("\n\n  %-44s %4s  %21s  %21s\n", "input of layer", "part", "range at the first", "at the last timestep");
    json_array_foreach(json_object_get(c, "inputs"), i, in)
    {
        const json_t *low = json_object_get(in, "low"), *high = json_object_get(in, "high");
        printf("  %-44s %4lld  %10.4g %10.4g  %10.4g %10.4g\n", json_string_value(json_object_get(in, "layer")),
               (long long)json_integer_value(json_object_get(in, "part")), json_real_value(json_array_get(low, 0)),
               json_real_value(json_array_get(high, 0)), json_real_value(json_array_get(low, last)),
               json_real_value(json_array_get(high, last)));
    }
    free(settings);
}

/* All options but --json are of models. */
static int check_calibration_options(const info_settings *settings)
{
    char given[OPTION_MAX_TEXT];
    for (const option *o = info_options; !option_is_last(o); o++)
        if (o->name && strcmp(o->name, "json") != 0 &&
            strcmp(option_text(o, settings, given), o->initial ? o->initial : "") != 0)
            return options_wrong(&info_command,
                                 "--%s is for models, and %.1000s is a file: a calibration takes --json alone", o->name,
                                 settings->model);
    return -1;
}

static int info_calibration(const info_settings *o)
{
    char *text;
    int code = check_calibration_options(o);
    if (code >= 0)
        return code;
    if (ht_calibration_json(o->model, &text))
        return report_failure();
    json_t *object = json_loads(text, 0, NULL);
    free(text);
    if (!object)
        return report("out of memory");
    if (o->json)
        return print_json(object);
    print_calibration(o->model, object);
    json_decref(object);
    return EXIT_SUCCESS;
}

/* ---- for machines ---- */

/* Multiply-accumulates are counted in double: exact up to 2^53. */
static json_int_t whole(double count)
{
    return count < 0x1p63 ? (json_int_t)count : INT64_MAX;
}

static json_t *stages_json(const ht_session *session, int ops)
{
    totals sum = count_stages(session, ops);
    json_t *list = json_array();
    for (int k = 0; k < STAGES; k++)
        if (sum.ops[k])
            json_array_append_new(list, json_pack("{s:s, s:i, s:I}", "stage", stages[k].stage, "ops", sum.ops[k],
                                                  "macs", whole(sum.macs[k])));
    return list;
}

static json_t *kernels_json(const ht_session *session, int ops)
{
    json_t *list = json_array();
    for (int i = 0; i < ops; i++) {
        ht_op_info op;
        ht_session_op(session, i, &op);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "name", op.name, "kind", op.kind,
                                              "stage", op.stage, "shape", op.shape, "kernel", op.kernel, "refused",
                                              op.refused, "macs", whole(op.macs)));
    }
    return list;
}

static json_t *info_json(const info_settings *o, const ht_model *model, const ht_model_info *m,
                         const ht_session *session, const ht_session_info *s)
{
    json_t *object =
        json_pack("{s:o, s:s, s:s?, s:s, s:s, s:s?, s:i, s:i, s:i, s:i, s:i, s:I, s:I}", "model", text_json(o->model),
                  "class", m->class_name, "scheduler", m->scheduler, "sampler", m->sampler, "spacing", m->spacing,
                  "decoder", m->decoder, "in_channels", m->in_channels, "out_channels", m->out_channels, "height",
                  m->height, "width", m->width, "num_classes", m->num_classes, "parameters", (json_int_t)m->parameters,
                  "weight_bytes", (json_int_t)m->weight_bytes);
    json_t *running = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:I, s:o}", "backend", s->backend, "isa", s->isa,
                                "threads", s->threads, "batch", s->batch, "height", s->height, "width", s->width,
                                "packed_bytes", (json_int_t)s->packed_bytes, "activation_bytes",
                                (json_int_t)s->activation_bytes, "stages", stages_json(session, s->ops));
    json_object_set_new(object, "session", running);
    if (m->layers) {
        json_object_set_new(object, "bits", json_real(m->average_bits));
        json_object_set_new(object, "softmax", json_string(m->softmax));
        json_object_set_new(object, "bit_operations", json_real(bit_operations(model, session, m, s->ops)));
    }
    if (o->layers)
        json_object_set_new(object, "layers", layers_json(model, m));
    if (o->kernels)
        json_object_set_new(object, "ops", kernels_json(session, s->ops));
    return object;
}

/* ---- the command ---- */

static int print_info(const info_settings *o, const ht_model *model, const ht_session *session)
{
    ht_model_info m;
    ht_session_info s;
    ht_model_get_info(model, &m);
    ht_session_get_info(session, &s);
    if (o->json)
        return print_json(info_json(o, model, &m, session, &s));
    print_model(o->model, &m);
    print_session(session, &s);
    if (o->layers && m.layers)
        print_layers(model, &m, bit_operations(model, session, &m, s.ops));
    if (o->kernels)
        print_kernels(session, s.ops);
    return EXIT_SUCCESS;
}

static int run_info(const void *settings)
{
    const info_settings *o = settings;
    ht_model *model;
    ht_session *session;
    struct stat st;
    if (!stat(o->model, &st) && S_ISREG(st.st_mode))
        return info_calibration(o);
    if (ht_model_open(o->model, o->component, &model))
        return report_failure();
    ht_session_options options = run_session_options(&o->run);
    options.batch = (int)o->batch;
    options.height = o->size.height;
    options.width = o->size.width;
    int status;
    if (ht_session_open(model, &options, &session)) {
        status = report_failure();
    } else {
        status = print_info(o, model, session);
        ht_session_close(session);
    }
    ht_model_close(model);
    return status;
}

const command info_command = {.name = "info",
                              .summary = "tell what a model is and how it would run",
                              .examples = "halftone info models/cifar10\n"
                                          "halftone info models/cifar10 --kernels --batch 16\n"
                                          "halftone info models/cifar10 --json | jq .session.stages\n"
                                          "halftone info models/cifar10-w4a8 --layers\n"
                                          "halftone info calib.safetensors",
                              .options = info_options,
                              .settings_size = sizeof(info_settings),
                              .run = run_info};
