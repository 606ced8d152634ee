/* test_quantize_model.c - from a model of floats to a folder of codes: every scheme draws, the same settings give the
 * same bytes, and what cannot be done leaves nothing behind. */
#include <jansson.h>
#include <math.h>

#include "tests/quantizing.h"

/* ---- schemes ---- */

static void every_scheme_draws(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&wide);
    const char *words;
    int n = 0;
    for (const char *scheme; (scheme = ht_scheme_name(n, &words)); n++) {
        ht_quantize_options o = with_calibration();
        o.scheme = scheme;
        o.layers = "tfmq"; /* nothing is tried out */
        o.rounding = "nearest";
        o.scale = "minmax";
        const char *path = quantize(m, scheme, &o);
        double distance = distance_of(m, path);
        int layers = 0;
        double bits = bits_of_layers(path, &layers);
        double bound = scheme[1] == '8' ? 0.1 : !strcmp(scheme, "w4a4") ? 1.5 : 0.8;
        if (!*words || !(distance > 0 && distance < bound) || layers < 20 || !(bits < 9))
            fail_msg("%s: distance %g, %d layers, %g bits", scheme, distance, layers, bits);
        remove_path(path);
    }
    assert_true(n >= 12);
    assert_null(ht_scheme_name(-1, NULL));
    ht_model_close(m);
}

static void every_set_of_layers_draws(void **state)
{
    (void)state;
    static const char *const sets[] = {"default", "all", "tfmq"}, *const schemes[] = {"w4a8", "w8a8", "fp8", "w4a32"};
    static const double bounds[] = {0.15, 0.08, 0.06, 0.12}; /* measured: 0.108, 0.054, 0.044, 0.091 at most */
    ht_model *m = open_calibrated(&classes);
    int layers[3];
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 3; i++) {
            ht_quantize_options o = with_calibration();
            o.scheme = schemes[k];
            o.layers = sets[i];
            o.rounding = "nearest";
            const char *path = quantize(m, sets[i], &o);
            double distance = distance_of(m, path);
            if (!(distance > 0 && distance < bounds[k]))
                fail_msg("%s, %s: distance %g", schemes[k], sets[i], distance);
            layers[i] = info_of(path).layers;
            remove_path(path);
        }
        assert_true(layers[2] < layers[0] && layers[0] == layers[1] - 2);
    }
    ht_model_close(m);
}

/* A way to set what is beside the scheme. */
static const struct {
    const char *name;
    ht_quantize_options options;
} variants[] = {{"dynamic", {.dynamic = 1}},
                {"one group", {.groups = 1}},
                {"two groups", {.groups = 2}},
                {"no split", {.no_split = 1}},
                {"minmax", {.observer = "minmax", .scale = "minmax"}},
                {"percentile", {.observer = "percentile", .scale = "percentile", .percentile = 99}},
                {"l2.4", {.observer = "l2.4", .scale = "l2.4"}},
                {"temporal", {.temporal = "quantized"}},
                {"inputs", {.inputs = "uint6"}},
                {"float inputs", {.inputs = "float"}},
                {"weights", {.weights = "fp4_e1m2"}},
                {"dynamic fp4a8", {.scheme = "fp4a8", .dynamic = 1}},
                {"dynamic, all", {.layers = "all", .dynamic = 1}},
                {"quantized temporal, dynamic", {.temporal = "quantized", .dynamic = 1}}};

static void every_setting_draws(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        ht_quantize_options o = variants[i].options;
        o.layers = o.layers || o.temporal ? o.layers : "all"; /* nothing is tried out */
        o.calibration = with_calibration().calibration;
        o.threads = 1;
        o.rounding = "nearest";
        const char *path = quantize(m, "quantized", &o);
        double distance = distance_of(m, path);
        if (!(distance > 0 && distance < 1.2))
            fail_msg("%s: distance %g", variants[i].name, distance);
        remove_path(path);
    }
    ht_model_close(m);
}

/* ---- the same bytes ---- */

static void the_same_settings_give_the_same_bytes(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    static const char *const roundings[] = {"nearest", "gptq", "descent", "gptq+descent"};
    for (int i = 0; i < 4; i++) {
        ht_quantize_options o = with_calibration();
        o.rounding = roundings[i];
        o.bits = i ? 0 : 8;
        o.layers = i ? "all" : "default"; /* choosing who gets 8 bits is the same for all */
        const char *one = quantize(m, "one", &o);
        o.threads = 2;
        o.batch = 3;
        const char *two = quantize(m, "two", &o);
        if (!same_model(one, two))
            fail_msg("%s: another batch or number of threads gives other bytes", roundings[i]);
        remove_path(one);
        remove_path(two);
    }
    ht_model_close(m);
}

/* Without a file the calibration is that of the seed. */
static void its_own_calibration_is_that_of_the_seed(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&least);
    ht_quantize_options o = {.seed = 5, .rounding = "nearest", .threads = 1, .layers = "all"};
    const char *one = quantize(m, "one", &o);
    assert_ok(ht_calibrate(m, &(ht_calibrate_options){.seed = 5, .threads = 2}, in_root("calib")));
    o.threads = 2;
    o.calibration = in_root("calib");
    assert_true(same_model(one, quantize(m, "three", &o)));
    o.threads = 1;
    o.calibration = NULL;
    o.seed = 6;
    assert_false(same_model(one, quantize(m, "four", &o)));
    ht_model_close(m);
}

/* ---- what is chosen ---- */

static void average_bits_stay_within_the_budget(void **state)
{
    (void)state;
    static const double budgets[] = {6.5, 7.5, 16};
    ht_model *m = open_calibrated(&tiny);
    double last = 0;
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        ht_quantize_options o = with_calibration();
        o.bits = budgets[i];
        o.rounding = "nearest";
        double bits = info_of(quantize(m, ht_sprintf(arena, "%d", (int)i), &o)).average_bits;
        ht_model *q = opened(in_root(ht_sprintf(arena, "%d", (int)i)));
        double said = json_number_value(json_object_get(json_object_get(q->config, "quantization_config"), "bits"));
        ht_model_close(q);
        if (!(bits <= budgets[i] + 1e-9 && bits >= last && fabs(bits - said) < 1e-6))
            fail_msg("budget %g: %g bits, after %g; config.json says %g", budgets[i], bits, last, said);
        last = bits;
    }
    ht_model_close(m);
}

static const ht_layer *layer_of(const ht_model *m, const char *name)
{
    return ht_layers_find(&m->layers, name);
}

static void the_default_leaves_first_and_last_and_keeps_time_in_8_bits(void **state)
{
    (void)state;
    static const char *const time[] = {"time_embedding.linear_1", "time_embedding.linear_2",
                                       "mid_block.resnets.0.time_emb_proj"};
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.bits = HT_BITS_LEAST;
    o.rounding = "nearest";
    ht_model *q = opened(quantize(m, "quantized", &o));
    assert_null(layer_of(q, "conv_in"));
    assert_null(layer_of(q, "conv_out"));
    const ht_tensor *a = tensor_of(m->file, "conv_in.weight"), *b = tensor_of(q->file, "conv_in.weight");
    assert_int_equal(a->dtype, b->dtype);
    assert_memory_equal(a->data, b->data, a->bytes);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(layer_of(q, time[i])->format.name, "int8");
        assert_int_equal(layer_of(q, time[i])->mode, HT_INPUT_FLOAT);
    }
    assert_string_equal(layer_of(q, "mid_block.resnets.0.conv1")->format.name, "int4");
    assert_int_equal(layer_of(q, "up_blocks.0.resnets.1.conv_shortcut")->parts, 2);
    assert_int_equal(layer_of(q, "up_blocks.0.resnets.1.conv_shortcut")->part[0].count, 16);
    assert_int_equal(layer_of(q, "mid_block.resnets.0.conv1")->part[0].input.groups, 3);
    ht_model_close(q);
    ht_model_close(m);
}

static void shortcuts_stay_one_if_told(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.no_split = 1;
    o.groups = 1;
    o.layers = "all";
    o.rounding = "nearest";
    ht_model *q = opened(quantize(m, "quantized", &o));
    for (int i = 0; i < q->layers.n; i++) {
        assert_int_equal(q->layers.layer[i].parts, 1);
        if (q->layers.layer[i].mode == HT_INPUT_STATIC)
            assert_int_equal(q->layers.layer[i].part[0].input.groups, 1);
    }
    ht_model_close(q);
    ht_model_close(m);
}

static void outputs_are_coupled_when_asked(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.layers = "all";
    const char *alone = ht_strdup(arena, quantize(m, "alone", &o));
    o.couple = 1;
    const char *together = ht_strdup(arena, quantize(m, "together", &o)), *again = quantize(m, "again", &o);
    const char *weights = "diffusion_pytorch_model.safetensors";
    assert_false(same_file(ht_sprintf(arena, "%s/%s", alone, weights), ht_sprintf(arena, "%s/%s", together, weights)));
    assert_true(same_file(ht_sprintf(arena, "%s/%s", again, weights), ht_sprintf(arena, "%s/%s", together, weights)));
    assert_true(distance_of(m, together) < 0.3);
    ht_model_close(m);
}

static double sum_of_errors(const char *path)
{
    ht_model *q = opened(path);
    double sum = 0;
    for (int i = 0; i < q->layers.n; i++) {
        ht_layer_info layer;
        ht_model_get_layer(q, i, &layer);
        assert_true(layer.error >= 0 || layer.error == -1);
        if (!strncmp(layer.format, "int4", 4) || !strcmp(layer.format, "fp4_e2m1")) /* whichever errs less */
            sum += layer.error;
    }
    ht_model_close(q);
    return sum;
}

/* GPTQ with descent is no worse than GPTQ; from where it starts, descent alone may end a little lower. */
static void rounding_lowers_the_error_of_outputs(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    double errors[3];
    static const char *const roundings[] = {"gptq", "descent", "gptq+descent"};
    o.layers = "all";
    for (int i = 0; i < 3; i++) {
        o.rounding = roundings[i];
        errors[i] = sum_of_errors(quantize(m, roundings[i], &o));
    }
    if (!(errors[2] > 0 && errors[2] <= 1.02 * errors[0] && errors[2] <= 1.2 * errors[1]))
        fail_msg("gptq %g, descent %g, both %g", errors[0], errors[1], errors[2]);
    double nearest, both = distance_of(m, in_root("gptq+descent"));
    o.rounding = "nearest";
    nearest = distance_of(m, quantize(m, "nearest", &o));
    if (!(both < nearest))
        fail_msg("images: nearest %g, gptq+descent %g away", nearest, both);
    ht_model_close(m);
}

static void config_says_how_it_was_made(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.rounding = "nearest";
    o.seed = 77;
    ht_model *q = opened(quantize(m, "quantized", &o));
    const json_t *how = json_object_get(q->config, "quantization_config");
    static const char *const keys[] = {"quant_method", "version", "scheme", "layers", "rounding", "source_sha256"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_true(json_is_string(json_object_get(how, keys[i])));
    assert_int_equal(json_integer_value(json_object_get(how, "seed")), 77);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(how, "calibration"), "steps")), 6);
    assert_int_equal(strlen(json_string_value(json_object_get(how, "source_sha256"))), 64);
    ht_model_close(q);
    ht_model_close(m);
}

static void a_pipeline_becomes_a_pipeline(void **state)
{
    (void)state;
    ht_model *m;
    float want[SMALL_PIXELS], got[SMALL_PIXELS];
    ht_model_info info;
    assert_ok(ht_model_open(GOLDENS "/pipeline/ddpm", NULL, &m));
    calibrate_quickly(m);
    ht_quantize_options o = with_calibration();
    o.scheme = "w8a8";
    o.rounding = "nearest";
    const char *path = quantize(m, "quantized/", &o);
    ht_model *q = opened(path);
    ht_model_get_info(q, &info);
    assert_string_equal(info.scheduler, "DDPMScheduler");
    assert_int_equal(entries_of(path), 3); /* model_index.json, scheduler, unet: what else lies there is not its */
    assert_int_equal(entries_of(root), 2);
    sample(m, want);
    sample(q, got);
    assert_close("8 bits", got, want, SMALL_PIXELS, 0.3);
    ht_model_close(q);
    ht_model_close(m);
}

static void put_text(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

/* What the denoiser needs not, as text encoders; also where a path is a link, as in the cache of a hub. */
static void a_pipeline_stays_whole(void **state)
{
    (void)state;
    ht_model *m;
    write_small_model(in_root("unet"), &tiny);
    assert_int_equal(mkdir(in_root("pipeline"), 0777), 0);
    assert_int_equal(rename(in_root("unet"), in_root("pipeline/unet")), 0);
    put_text(
        in_root("pipeline/model_index.json"),
        "{\"_class_name\":\"P\",\"unet\":[\"diffusers\",\"UNet2DModel\"],\"vae\":[\"diffusers\",\"AutoencoderKL\"]}");
    assert_int_equal(mkdir(in_root("pipeline/vae"), 0777), 0);
    assert_int_equal(mkdir(in_root("pipeline/vae/deep"), 0777), 0);
    assert_int_equal(mkdir(in_root("pipeline/.git"), 0777), 0);
    put_text(in_root("pipeline/vae/weights.bin"), "weights");
    put_text(in_root("pipeline/vae/deep/empty"), "");
    put_text(in_root("pipeline/LICENSE"), "as is");
    put_text(in_root("blob"), "blob");
    put_text(in_root("pipeline/README.md"), "of the model of floats");
    assert_int_equal(symlink("../../blob", in_root("pipeline/vae/merges.txt")), 0);
    assert_ok(ht_model_open(in_root("pipeline"), NULL, &m));
    calibrate_quickly(m);
    ht_quantize_options o = with_calibration();
    o.rounding = "nearest";
    o.layers = "all";
    const char *inside = quantize(m, "pipeline/small", &o), *beside = quantize(m, "beside", &o);
    ht_model_close(m);
    assert_int_equal(entries_of(inside), 4); /* model_index.json, unet, vae, LICENSE */
    assert_int_equal(entries_of(beside), 4);
    static const char *const kept[] = {"vae/weights.bin", "vae/deep/empty", "LICENSE", "vae/merges.txt"};
    for (int i = 0; i < 4; i++) {
        const char *old = ht_sprintf(arena, "%s/%s", in_root("pipeline"), kept[i]);
        assert_true(same_file(old, ht_sprintf(arena, "%s/%s", inside, kept[i])));
    }
    remove_path(in_root("pipeline"));
    remove_path(in_root("blob"));
    for (int i = 0; i < 4; i++) { /* nothing hangs on where it was made from */
        size_t n;
        char *bytes = bytes_of(ht_sprintf(arena, "%s/%s", beside, kept[i]), &n);
        assert_string_equal(bytes, ((const char *const[]){"weights", "", "as is", "blob"})[i]);
        free(bytes);
    }
    ht_model_close(opened(beside));
}

/* ---- what is refused ---- */

static ht_status try(ht_model *m, const char *name, ht_quantize_options o)
{
    if (!o.calibration)
        o.calibration = with_calibration().calibration;
    return ht_quantize(m, &o, in_root(name));
}

static void options_out_of_range_are_refused_before_work(void **state)
{
    (void)state;
    const struct {
        ht_quantize_options options;
        const char *words;
    } cases[] = {{{.scheme = "w3a8"}, "w3a8"},
                 {{.layers = "some"}, "some"},
                 {{.weights = "int5"}, "int5"},
                 {{.weights = "noformat"}, "noformat"},
                 {{.inputs = "int8"}, "int8"},
                 {{.inputs = "mxfp4"}, "mxfp4"},
                 {{.rounding = "up"}, "\"up\""},
                 {{.scale = "best"}, "best"},
                 {{.observer = "best"}, "best"},
                 {{.scale_powers = "some"}, "free, each, tensor"},
                 {{.scale_powers = "each", .scheme = "nvfp4"}, "wanted a format with float32 scales"},
                 {{.temporal = "never"}, "never"},
                 {{.bits = 0.5}, "0.5"},
                 {{.bits = 17}, "17"},
                 {{.bits = NAN}, "nan"},
                 {{.bits = -2}, "-2"},
                 {{.bits = 2}, "at least"},
                 {{.bits = 8, .scheme = "w8a8"}, "w8a8 of the layers \"default\" takes"},
                 {{.groups = -1}, "-1 groups"},
                 {{.percentile = 101}, "101"},
                 {{.percentile = -5}, "-5"},
                 {{.percentile = NAN}, "percentile"},
                 {{.blocks = -1}, "-1"},
                 {{.batch = -1}, "batch -1"},
                 {{.threads = -1}, "threads -1"},
                 {{.threads = 5000}, "threads 5000"},
                 {{.dynamic = 1, .no_split = 1}, "no_split"},
                 {{.dynamic = 1, .scheme = "fp8"}, "fp8_e4m3"},
                 {{.calibration = "/no/such/file"}, "/no/such/file"}};
    ht_model *m = open_calibrated(&tiny);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_quantize_options o = cases[i].options;
        o.rounding = o.rounding ? o.rounding : "nearest";
        ht_status status = try(m, "out", o);
        if ((status != HT_ERR_ARGUMENT && status != HT_ERR_IO) || !strstr(ht_error_message(), cases[i].words))
            fail_msg("case %zu: status %d, \"%s\"; wanted %d with \"%s\"", i, status, ht_error_message(),
                     HT_ERR_ARGUMENT, cases[i].words);
        assert_int_equal(entries_of(root), 2);
    }
    ht_model_close(m);
}

static int never(void *user, int64_t done, int64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    fail_msg("work has begun");
    return 1;
}

static void a_block_that_does_not_divide_is_refused_before_work(void **state)
{
    (void)state;
    static const char *const schemes[] = {"mxfp4", "nvfp4", "nvint4"};
    ht_model *m = open_calibrated(&tiny);
    for (int i = 0; i < 3; i++)
        assert_refused(try(m, "out", (ht_quantize_options){.scheme = schemes[i], .progress = never}), HT_ERR_SHAPE,
                       "inputs a channel do not divide");
    assert_refused(try(m, "out", (ht_quantize_options){.weights = "int4_g64", .progress = never}), HT_ERR_SHAPE,
                   "int4_g64");
    assert_int_equal(entries_of(root), 2);
    ht_model_close(m);
}

static void a_place_that_cannot_be_written_is_refused_before_work(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    mkdir(in_root("full"), 0777);
    put_bytes(in_root("full/mine"), "mine", 4);
    put_bytes(in_root("file"), "mine", 4);
    assert_int_equal(symlink("nowhere", in_root("link")), 0);
    const char *paths[] = {"full", "full/", "file", "link", "none/out", "file/out", "model"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ht_status status = try(m, paths[i], (ht_quantize_options){.progress = never});
        if (status != HT_ERR_ARGUMENT && status != HT_ERR_IO)
            fail_msg("%s: status %d, \"%s\"", paths[i], status, ht_error_message());
        assert_non_null(strstr(ht_error_message(), paths[i]));
    }
    assert_int_equal(ht_quantize(m, &(ht_quantize_options){.progress = never}, ""), HT_ERR_ARGUMENT);
    assert_int_equal(ht_quantize(m, &(ht_quantize_options){.progress = never}, NULL), HT_ERR_ARGUMENT);
    assert_int_equal(entries_of(in_root("full")), 1);
    assert_int_equal(entries_of(root), 5);
    ht_model_close(m);
}

static void an_empty_folder_is_taken(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    mkdir(in_root("empty"), 0777);
    assert_ok(try(m, "empty", (ht_quantize_options){.rounding = "nearest", .layers = "all"}));
    assert_true(info_of(in_root("empty")).layers > 0);
    assert_int_equal(entries_of(root), 3);
    ht_model_close(m);
}

static void put_nan(ht_tensor *tensors, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(tensors[i].name, "up_blocks.0.resnets.1.conv1.weight"))
            ((float *)(uintptr_t)tensors[i].data)[5] = NAN;
}

static void a_weight_that_is_nan_is_refused_by_name(void **state)
{
    (void)state;
    small_model broken = tiny;
    ht_model *m;
    broken.change = put_nan;
    write_small_model(in_root("model"), &broken);
    assert_ok(ht_model_open(in_root("model"), NULL, &m));
    ht_status status = ht_quantize(m, &(ht_quantize_options){.progress = never}, in_root("out"));
    if ((status != HT_ERR_ARGUMENT && status != HT_ERR_FORMAT) ||
        !strstr(ht_error_message(), "up_blocks.0.resnets.1.conv1"))
        fail_msg("status %d, \"%s\"", status, ht_error_message());
    assert_int_equal(entries_of(root), 1);
    ht_model_close(m);
}

static void a_quantized_model_is_not_quantized_again(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny), *q;
    ht_quantize_options o = with_calibration();
    o.rounding = "nearest";
    o.layers = "all";
    q = opened(quantize(m, "once", &o));
    assert_refused(try(q, "twice", (ht_quantize_options){.progress = never}), HT_ERR_ARGUMENT, "is quantized already");
    assert_refused(ht_calibrate(q, NULL, in_root("again")), HT_ERR_ARGUMENT, "is quantized already");
    assert_int_equal(entries_of(root), 3);
    ht_model_close(q);
    ht_model_close(m);
}

static void a_calibration_of_another_model_is_refused(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny), *other;
    write_small_model(in_root("other"), &classes);
    assert_ok(ht_model_open(in_root("other"), NULL, &other));
    assert_refused(try(other, "out", (ht_quantize_options){0}), HT_ERR_ARGUMENT, "other weights");
    assert_int_equal(entries_of(root), 3);
    ht_model_close(other);
    ht_model_close(m);
}

typedef struct watch {
    int64_t stop, last;
} watch;

static int stop_at(void *user, int64_t done, int64_t total)
{
    watch *w = user;
    assert_int_equal(total, 1000);
    assert_true(done >= w->last && done <= total);
    w->last = done;
    return done >= w->stop;
}

static void progress_grows_and_a_cancelled_quantization_leaves_nothing(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    for (int64_t stop = 1; stop < 980; stop += 480) {
        watch w = {.stop = stop};
        ht_quantize_options o = {.progress = stop_at, .user = &w, .threads = 1, .bits = 8};
        if (stop > 1) /* the first stops calibration */
            o.calibration = with_calibration().calibration;
        assert_refused(ht_quantize(m, &o, in_root("out")), HT_ERR_CANCELLED, "cancelled");
        assert_int_equal(entries_of(root), 2);
    }
    watch w = {.stop = 1001};
    ht_quantize_options o = {.progress = stop_at, .user = &w, .threads = 2, .rounding = "nearest", .layers = "all"};
    o.calibration = with_calibration().calibration;
    assert_ok(ht_quantize(m, &o, in_root("out")));
    assert_true(w.last > 0);
    ht_model_close(m);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_scheme_draws),
        CASE(every_set_of_layers_draws),
        CASE(every_setting_draws),
        CASE(the_same_settings_give_the_same_bytes),
        CASE(its_own_calibration_is_that_of_the_seed),
        CASE(average_bits_stay_within_the_budget),
        CASE(the_default_leaves_first_and_last_and_keeps_time_in_8_bits),
        CASE(shortcuts_stay_one_if_told),
        CASE(outputs_are_coupled_when_asked),
        CASE(rounding_lowers_the_error_of_outputs),
        CASE(config_says_how_it_was_made),
        CASE(a_pipeline_becomes_a_pipeline),
        CASE(a_pipeline_stays_whole),
        CASE(options_out_of_range_are_refused_before_work),
        CASE(a_block_that_does_not_divide_is_refused_before_work),
        CASE(a_place_that_cannot_be_written_is_refused_before_work),
        CASE(an_empty_folder_is_taken),
        CASE(a_weight_that_is_nan_is_refused_by_name),
        CASE(a_quantized_model_is_not_quantized_again),
        CASE(a_calibration_of_another_model_is_refused),
        CASE(progress_grows_and_a_cancelled_quantization_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
