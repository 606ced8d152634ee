/* test_cli_quantize.c - halftone calibrate, quantize, and info on what they made: exit codes, one line on stderr, JSON,
 * and what Ctrl-C leaves. */
#include "tests/program.h"

#include <jansson.h>
#include <signal.h>
#include <time.h>

#define MODEL "tests/goldens/pipeline/ddpm"

/* Few samples of few steps. */
#define QUICK "--steps", "6", "--timesteps", "3", "-n", "2", "--threads", "1"

static void wait_ms(int ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static void assert_contains(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("no \"%s\" in <%.2000s>", words, text);
}

static json_t *parse_output(const scratch *s)
{
    json_error_t error;
    json_t *object = json_loads(s->out, 0, &error);
    if (!object)
        fail_msg("not JSON: %s: <%.500s>", error.text, s->out);
    return object;
}

static const char *calibrated(scratch *s)
{
    const char *path = in_scratch(s, "calib.safetensors");
    assert_worked(s, run(s, "calibrate", MODEL, QUICK, "-q", "-o", path));
    assert_string_equal(s->out, "");
    return path;
}

static void a_calibration_is_described_in_json(void **state)
{
    scratch *s = *state;
    const char *path = in_scratch(s, "calib.safetensors");
    assert_worked(s, run(s, "calibrate", MODEL, QUICK, "--seed", "5", "--json", "-o", path));
    json_t *o = parse_output(s), *settings = json_object_get(o, "settings");
    assert_string_equal(json_string_value(json_object_get(o, "output")), path);
    assert_int_equal(json_integer_value(json_object_get(settings, "seed")), 5);
    assert_int_equal(json_integer_value(json_object_get(settings, "timesteps")), 3);
    assert_string_equal(json_string_value(json_object_get(settings, "distribution")), "uniform");
    assert_true(json_real_value(json_object_get(o, "seconds")) > 0);
    json_decref(o);
    assert_int_equal(count_files(s->folder), 1);
    assert_worked(s, run(s, "calibrate", MODEL, QUICK, "-o", path));
    assert_contains(s->out, "calib.safetensors: calibrated in");
    assert_worked(s, run(s, "predict", MODEL, path, "-o", in_scratch(s, "out.safetensors")));
}

static void a_quantized_model_is_made_described_and_drawn(void **state)
{
    scratch *s = *state;
    const char *calib = calibrated(s), *folder = in_scratch(s, "quantized");
    assert_worked(s, run(s, "quantize", MODEL, "--scheme", "w8a8", "--calib", calib, "--rounding", "nearest",
                         "--threads", "1", "--json", "-o", folder));
    json_t *o = parse_output(s), *settings = json_object_get(o, "settings");
    assert_string_equal(json_string_value(json_object_get(o, "output")), folder);
    assert_string_equal(json_string_value(json_object_get(settings, "scheme")), "w8a8");
    assert_true(json_integer_value(json_object_get(o, "weight_bytes")) > 10000);
    double bits = json_real_value(json_object_get(o, "bits"));
    assert_true(bits > 8 && bits < 12);
    json_decref(o);
    assert_int_equal(count_files(s->folder), 2);
    assert_worked(s, run(s, "info", folder, "--json"));
    o = parse_output(s);
    assert_string_equal(json_string_value(json_object_get(o, "class")), "UNet2DModel");
    assert_true(json_integer_value(json_object_get(o, "weight_bytes")) > 10000);
    json_decref(o);
    assert_worked(s, run(s, "info", folder));
    assert_worked(s, run(s, "sample", folder, "-n", "2", "--steps", "3", "-q", "-o", in_scratch(s, "a.png")));
    assert_worked(s, run(s, "predict", folder, calib, "-o", in_scratch(s, "out.safetensors")));
}

static void a_quantization_says_in_a_line_what_it_made(void **state)
{
    scratch *s = *state;
    const char *calib = calibrated(s);
    assert_worked(s, run(s, "quantize", MODEL, "--calib", calib, "--rounding", "nearest", "--layers", "all", "-o",
                         in_scratch(s, "q")));
    assert_contains(s->out, "q: ");
    assert_contains(s->out, " bits each on average");
    assert_int_equal(strchr(s->out, '\n') - s->out + 1, strlen(s->out));
    assert_worked(s, run(s, "quantize", MODEL, "--calib", calib, "--rounding", "nearest", "--layers", "all", "-q", "-o",
                         in_scratch(s, "quiet")));
    assert_string_equal(s->out, "");
}

/* PixArt-alpha, two of whose weights are each used by two operations. */
static void a_transformer_that_reads_sizes_is_quantized_and_drawn(void **state)
{
    scratch *s = *state;
    const char *model = "tests/goldens/pipeline/pixart-alpha", *folder = in_scratch(s, "quantized"),
               *calib = in_scratch(s, "calib.safetensors");
    assert_worked(s, run(s, "calibrate", model, "--steps", "2", "--timesteps", "1", "-n", "2", "-q", "-o", calib));
    assert_worked(
        s, run(s, "quantize", model, "--calib", calib, "--layers", "all", "--rounding", "gptq", "-q", "-o", folder));
    assert_worked(s, run(s, "info", folder, "--layers"));
    const char *row = strstr(s->out, "adaln_single.emb.resolution_embedder.linear_1 ");
    assert_true(row && !strstr(row + 1, "adaln_single.emb.resolution_embedder.linear_1 "));
    assert_worked(
        s, run(s, "sample", folder, "-p", "a cat", "--steps", "2", "-n", "1", "-q", "-o", in_scratch(s, "a.png")));
}

static void wrong_command_lines_exit_2(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    assert_refused(s, run(s, "quantize", MODEL), 2);
    assert_refused(s, run(s, "quantize", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--scheme", "w3a8", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--bits", "0.5", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--rounding", "up", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--layers", "some", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--groups", "-1", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--weights", "int5", "-o", out), 2);
    assert_contains(s->err, "int5");
    assert_refused(s, run(s, "quantize", MODEL, "--weights", "noformat", "-o", out), 2);
    assert_contains(s->err, "noformat");
    assert_refused(s, run(s, "quantize", MODEL, "--inputs", "int8", "-o", out), 2);
    assert_contains(s->err, "int8");
    assert_refused(s, run(s, "quantize", MODEL, "--dynamic", "--no-split", "-o", out), 2);
    assert_refused(s, run(s, "quantize", MODEL, "--groups", "1025", "-o", out), 2);
    assert_refused(s, run(s, "calibrate", MODEL), 2);
    assert_refused(s, run(s, "calibrate", MODEL, "--timesteps", "1000", "-n", "65536", "-o", out), 2);
    assert_contains(s->err, "at most");
    assert_refused(s, run(s, "calibrate", MODEL, "--distribution", "gauss", "-o", out), 2);
    assert_refused(s, run(s, "calibrate", MODEL, "-n", "0", "-o", out), 2);
    assert_int_equal(count_files(s->folder), 0);
}

static void options_of_models_are_not_of_calibrations(void **state)
{
    scratch *s = *state;
    const char *calib = calibrated(s);
    static const char *const options[][2] = {{"--layers"},     {"--kernels"},    {"--component", "unet"},
                                             {"--size", "32"}, {"--batch", "2"}, {"--threads", "2"},
                                             {"--isa", "avx2"}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        const char *arguments[] = {"info", calib, options[i][0], options[i][1], NULL};
        assert_refused(s, finish_program(s, start_program(s, arguments)), 2);
        assert_contains(s->err, options[i][0]);
        assert_contains(s->err, "calibration");
    }
    assert_worked(s, run(s, "info", calib));
    assert_worked(s, run(s, "info", calib, "--json"));
}

static void what_cannot_be_done_exits_1_with_one_line(void **state)
{
    scratch *s = *state;
    const char *calib = calibrated(s), *out = in_scratch(s, "out"), *made = in_scratch(s, "made");
    assert_worked(
        s, run(s, "quantize", MODEL, "--calib", calib, "--rounding", "nearest", "--layers", "all", "-q", "-o", made));
    const struct {
        const char *arguments[8], *words;
    } cases[] = {
        {{"quantize", "no/such/model", "-o", out}, "no/such/model"},
        {{"quantize", MODEL, "-o", made}, "exists"},
        {{"quantize", MODEL, "-o", in_scratch(s, "none/out")}, "none"},
        {{"quantize", MODEL, "--calib", "no/such/calib", "-o", out}, "no/such/calib"},
        {{"quantize", MODEL, "--calib", in_scratch(s, "made/unet/config.json"), "-o", out}, "config.json"},
        {{"quantize", "tests/goldens/unet/ddpm-cifar", "--calib", calib, "-o", out}, "other weights"},
        {{"quantize", MODEL, "--scheme", "nvfp4", "-o", out}, "do not divide"},
        {{"quantize", MODEL, "--bits", "2", "-o", out}, "at least"},
        {{"quantize", MODEL, "--scheme", "w8a8", "--bits", "4.68", "-o", out}, "at least"},
        {{"quantize", made, "-o", out}, "is quantized already"},
        {{"quantize", "models/emoji-dit", "--blocks", "2", "-o", out}, "cannot be reconstructed; leave out blocks"},
        {{"calibrate", made, "-o", out}, "is quantized already"},
        {{"calibrate", "no/such/model", "-o", out}, "no/such/model"},
        {{"calibrate", MODEL, "-o", in_scratch(s, "none/calib")}, "none"},
        {{"calibrate", MODEL, "--steps", "100000", "-o", out}, "100000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *arguments[10] = {NULL};
        memcpy(arguments, cases[i].arguments, sizeof cases[i].arguments);
        assert_refused(s, finish_program(s, start_program(s, arguments)), 1);
        assert_contains(s->err, cases[i].words);
        assert_int_equal(count_files(s->folder), 2);
    }
}

static void a_tampered_model_is_refused_by_every_command(void **state)
{
    scratch *s = *state;
    const char *made = in_scratch(s, "made"), *calib = calibrated(s),
               *weights = in_scratch(s, "made/unet/diffusion_pytorch_model.safetensors");
    assert_worked(
        s, run(s, "quantize", MODEL, "--calib", calib, "--rounding", "nearest", "--layers", "all", "-q", "-o", made));
    struct stat status;
    assert_int_equal(stat(weights, &status), 0);
    char *bytes = malloc((size_t)status.st_size);
    FILE *f = fopen(weights, "r+b");
    assert_true(bytes && f);
    assert_int_equal(fread(bytes, 1, (size_t)status.st_size, f), status.st_size);
    char *mode = memmem(bytes, (size_t)status.st_size, "uint8", 5);
    assert_non_null(mode);
    memcpy(mode, "uint9", 5);
    rewind(f);
    assert_int_equal(fwrite(bytes, 1, (size_t)status.st_size, f), status.st_size);
    assert_int_equal(fclose(f), 0);
    free(bytes);
    assert_refused(s, run(s, "info", made), 1);
    assert_contains(s->err, "uint9");
    assert_refused(s, run(s, "sample", made, "-n", "1", "--steps", "2", "-o", in_scratch(s, "a.png")), 1);
    assert_refused(s, run(s, "predict", made, calib, "-o", in_scratch(s, "out")), 1);
    assert_int_equal(truncate(weights, status.st_size / 2), 0);
    assert_refused(s, run(s, "info", made), 1);
    assert_refused(s, run(s, "sample", made, "-n", "1", "--steps", "2", "-o", in_scratch(s, "a.png")), 1);
    assert_int_equal(count_files(s->folder), 2);
}

/* ---- Ctrl-C ---- */

/* Until the child has its weights mapped: by then it has a handler. */
static void wait_for_model(pid_t child)
{
    static char maps[1 << 18];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)child);
    for (int i = 0; i < 3000; i++) {
        read_text(path, maps, sizeof maps);
        if (strstr(maps, ".safetensors"))
            return;
        wait_ms(10);
    }
    fail_msg("no model after 30 s");
}

static void assert_interrupted(scratch *s, const char *const *arguments, int signal)
{
    pid_t child = start_program(s, arguments);
    wait_for_model(child);
    wait_ms(300);
    kill(child, signal);
    assert_refused(s, finish_program(s, child), 128 + signal);
    assert_contains(s->err, "interrupted: ");
    assert_contains(s->err, "was not written");
    assert_int_equal(count_files(s->folder), 0);
}

static void interrupting_leaves_nothing(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    const char *calibrate[] = {"calibrate", "models/cifar10", "-n", "1000", "--steps", "500", "-o", out, NULL};
    const char *quantize[] = {"quantize", "models/cifar10", "-o", out, NULL};
    assert_interrupted(s, calibrate, SIGINT);
    assert_interrupted(s, quantize, SIGINT);
    assert_interrupted(s, quantize, SIGTERM);
}

/* ---- two at one place ---- */

static void two_processes_do_not_make_one_model(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    const char *quantize[] = {"quantize", "models/cifar10", "-o", out, NULL};
    scratch *other = malloc(sizeof *other);
    assert_non_null(other);
    *other = *s;
    strcat(other->captured_out, "1");
    strcat(other->captured_err, "1");
    pid_t first = start_program(other, quantize);
    for (int i = 0; i < 3000 && !exists(out); i++)
        wait_ms(10);
    assert_true(exists(out));
    assert_refused(s, run(s, "quantize", MODEL, "-o", out), 1);
    assert_contains(s->err, "out: another process is making a model there");
    assert_true(exists(out));
    kill(first, SIGINT);
    assert_refused(other, finish_program(other, first), 130);
    assert_int_equal(count_files(s->folder), 0);
    free(other);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_scratch, close_scratch)

int main(void)
{
    static const int signals[] = {SIGINT, SIGTERM}; /* whoever runs the tests may have them ignored */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
    const struct CMUnitTest tests[] = {
        CASE(a_calibration_is_described_in_json),
        CASE(a_quantized_model_is_made_described_and_drawn),
        CASE(a_quantization_says_in_a_line_what_it_made),
        CASE(a_transformer_that_reads_sizes_is_quantized_and_drawn),
        CASE(wrong_command_lines_exit_2),
        CASE(what_cannot_be_done_exits_1_with_one_line),
        CASE(options_of_models_are_not_of_calibrations),
        CASE(two_processes_do_not_make_one_model),
        CASE(a_tampered_model_is_refused_by_every_command),
        CASE(interrupting_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
