/* info.c - `halftone info`: what a model is, which stages its graph falls into, and which kernel each operation got. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/text.h"

typedef struct info_settings {
    const char *model, *component;
    int64_t batch;
    option_size size;
    run_settings run;
    bool kernels, json;
} info_settings;

#define AT(member) .at = offsetof(info_settings, member)

/* clang-format off */
static const option info_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, or that of one of its components"},
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
        printf("  decoder      %s, which this version does not have: samples are latents\n", m->decoder);
    printf("  sample       %dx%d, %d channels; %d out\n", m->width, m->height, m->in_channels, m->out_channels);
    if (m->takes_class && m->num_classes)
        printf("  classes      %d\n", m->num_classes);
    else if (m->takes_class)
        printf("  classes      numbers, embedded like a timestep\n");
    if (m->class_embed_dim)
        printf("  classes      as embeddings of %d\n", m->class_embed_dim);
    printf("  parameters   %" PRId64 ", %.1f MB as stored\n", m->parameters, (double)m->weight_bytes * 1e-6);
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

static json_t *info_json(const info_settings *o, const ht_model_info *m, const ht_session *session,
                         const ht_session_info *s)
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
        return print_json(info_json(o, &m, session, &s));
    print_model(o->model, &m);
    print_session(session, &s);
    if (o->kernels)
        print_kernels(session, s.ops);
    return EXIT_SUCCESS;
}

static int run_info(const void *settings)
{
    const info_settings *o = settings;
    ht_model *model;
    ht_session *session;
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
                                          "halftone info models/cifar10 --json | jq .session.stages",
                              .options = info_options,
                              .settings_size = sizeof(info_settings),
                              .run = run_info};
