/* test_cli.c - the program as a user meets it: options, help, JSON, where pictures go, Ctrl-C, full disks. */
#include "tests/program.h"

#include <ctype.h>
#include <jansson.h>
#include <signal.h>
#include <time.h>

#define MODEL "tests/goldens/pipeline/ddpm"

static const char *const command_names[] = {"sample", "predict", "info", "bench"};
enum { COMMANDS = sizeof command_names / sizeof *command_names };

static void wait_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("<%s> is not in <%.2000s>", part, text);
}

/* ---- usage ---- */

static void version_and_help_are_printed(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "--version"));
    assert_int_equal(strncmp(s->out, "halftone ", 9), 0);
    assert_worked(s, run(s, "--help"));
    for (int i = 0; i < COMMANDS; i++)
        assert_contains(s->out, command_names[i]);
}

static void every_command_has_help_with_examples(void **state)
{
    scratch *s = *state;
    for (int i = 0; i < COMMANDS; i++) {
        char example[64];
        assert_worked(s, run(s, command_names[i], "--help"));
        assert_contains(s->out, "usage: halftone");
        snprintf(example, sizeof example, "examples:\n  halftone %s ", command_names[i]);
        assert_contains(s->out, example);
    }
}

/* Every --name of the help stands in the manual, where hyphens are written "\-". */
static void manual_names_every_option(void **state)
{
    scratch *s = *state;
    static char manual[1 << 16];
    read_text("docs/halftone.1", manual, sizeof manual);
    for (int i = 0; i < COMMANDS; i++) {
        int found = 0;
        assert_worked(s, run(s, command_names[i], "--help"));
        for (const char *at = s->out; (at = strstr(at, " --")); found++) {
            char option[64] = "\\-\\-";
            size_t n = 4;
            for (at += 3; (isalnum((unsigned char)*at) || *at == '-') && n < sizeof option - 3; at++) {
                if (*at == '-')
                    option[n++] = '\\';
                option[n++] = *at;
            }
            assert_contains(manual, option);
        }
        assert_true(found >= 5);
    }
}

/* Arguments (separated by blanks) that are wrong in themselves, and what the line about them must say. */
static const struct {
    const char *arguments, *says;
} wrong[] = {
    {"", "no command"},
    {"smaple x", "did you mean sample?"},
    {"paint x", "unknown command 'paint'"},
    {"sample", "MODEL is missing"},
    {"sample " MODEL " extra", "unexpected argument 'extra'"},
    {"sample " MODEL " --step 3", "did you mean --steps?"},
    {"sample " MODEL " --setps=3", "did you mean --steps?"},
    {"sample " MODEL " --colour red", "unknown option --colour"},
    {"sample " MODEL " -x", "unknown option -x"},
    {"sample " MODEL " --steps", "--steps needs a value"},
    {"sample " MODEL " --quiet=1", "--quiet takes no value"},
    {"sample " MODEL " --steps 0", "from 1 to"},
    {"sample " MODEL " --steps 1.5", "a whole number"},
    {"sample " MODEL " --steps 5x", "a whole number"},
    {"sample " MODEL " --steps 0x10", "a whole number"},
    {"sample " MODEL " --steps 99999999999999999999", "a whole number"},
    {"sample " MODEL " --steps=", "--steps ''"},
    {"sample " MODEL " -n 0", "--number 0: must be a whole number from 1 to"},
    {"sample " MODEL " -n -1", "--number -1"},
    {"sample " MODEL " --seed -1", "--seed -1"},
    {"sample " MODEL " --seed abc", "--seed abc"},
    {"sample " MODEL " --seed 18446744073709551616", "to 18446744073709551615"},
    {"sample " MODEL " --eta nan", "a number from 0 to 1"},
    {"sample " MODEL " --eta inf", "a number from 0 to 1"},
    {"sample " MODEL " --eta -0.5", "a number from 0 to 1"},
    {"sample " MODEL " --sampler eular", "one of ddim ddpm euler euler-a"},
    {"sample " MODEL " --sampler dd", "one of ddim ddpm"},
    {"sample " MODEL " --rng torch", "philox torch-cpu torch-cuda"},
    {"sample " MODEL " --class 1,,2", "separated by commas"},
    {"sample " MODEL " --class 1,", "separated by commas"},
    {"sample " MODEL " --size 32x", "WIDTHxHEIGHT"},
    {"sample " MODEL " --size 0x32", "WIDTHxHEIGHT"},
    {"sample " MODEL " --total 3 -n 4 --rng torch-cpu", "at least first + n, 4"},
    {"sample " MODEL " --total 9 -n 4", "philox draws each image by itself"},
    {"sample " MODEL " -o picture.jpg", "pictures are PNG"},
    {"sample " MODEL " --guidance -1", "a number from 0 to"},
    {"sample " MODEL " --mask m.png", "--mask belongs to a picture"},
    {"sample " MODEL " --strength 0.5", "--strength belongs to a picture"},
    {"sample " MODEL " --crop 1,2,3", "--crop wants two numbers"},
    {"sample " MODEL " --size 32 -W 32", "leave --width and --height out"},
    {"sample " MODEL " --terminal vt100", "auto kitty iterm2 sixel blocks"},
    {"predict " MODEL, "IN.safetensors is missing"},
    {"predict " MODEL " in.safetensors", "--output OUT.safetensors is missing"},
    {"info " MODEL " --batch 0", "from 1 to"},
    {"bench " MODEL " --seconds -1", "a number from 0 to"},
};

static void wrong_command_lines_exit_2_with_one_line(void **state)
{
    scratch *s = *state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char words[256];
        const char *argv[MAX_ARGUMENTS] = {0};
        int n = 0;
        snprintf(words, sizeof words, "%s", wrong[i].arguments);
        for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
            argv[n++] = word;
        int code = finish_program(s, start_program(s, argv));
        assert_refused(s, code, 2);
        assert_contains(s->err, wrong[i].says);
        assert_contains(s->err, "--help)");
    }
}

/* ---- where things go ---- */

/* The value of the tEXt chunk `parameters`, and that the file is a whole PNG. */
static void read_parameters(const char *path, char *text, size_t size)
{
    static unsigned char data[1 << 20];
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(data, 1, sizeof data, f), at = 8;
    fclose(f);
    assert_true(n > 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8));
    text[0] = 0;
    bool ended = false;
    while (!ended && at + 12 <= n) {
        const unsigned char *chunk = data + at;
        size_t length = (size_t)chunk[0] << 24 | (size_t)chunk[1] << 16 | (size_t)chunk[2] << 8 | chunk[3];
        assert_true(length <= n - at - 12);
        if (!memcmp(chunk + 4, "tEXtparameters", 15))
            snprintf(text, size, "%.*s", (int)(length - 11), chunk + 8 + 11);
        ended = !memcmp(chunk + 4, "IEND", 4);
        at += length + 12;
    }
    assert_true(ended);
    assert_int_equal(at, n);
}

static void assert_same_file(const char *a, const char *b)
{
    static unsigned char x[1 << 20], y[1 << 20];
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    assert_non_null(f);
    assert_non_null(g);
    size_t n = fread(x, 1, sizeof x, f), m = fread(y, 1, sizeof y, g);
    fclose(f);
    fclose(g);
    assert_true(n > 0);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
}

static void a_picture_tells_how_it_was_made(void **state)
{
    scratch *s = *state;
    char text[2048];
    const char *path = in_scratch(s, "grid.png");
    assert_worked(s, run(s, "sample", MODEL, "-n", "4", "--steps=3", "--seed", "18446744073709551615", "--sampler",
                         "ddim", "--eta", "0.3", "-o", path));
    assert_contains(s->out, "4 images, 3 steps");
    assert_int_equal(count_files(s->folder), 1);
    read_parameters(path, text, sizeof text);
    const char *parts[] = {"\nSteps: 3, Sampler: DDIM, Seed: 18446744073709551615, Size: ", ", Images: 4, First: 0, ",
                           ", Eta: 0.3, ", ", RNG: philox, ", ", Model: ddpm, Version: halftone 0."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_contains(text, parts[i]);
}

/* The spacing is the config's then; the noise that DDIM adds is no setting of DDPM. */
static void a_picture_tells_what_the_model_decided(void **state)
{
    scratch *s = *state;
    char text[2048];
    const char *path = in_scratch(s, "a.png");
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--steps", "2", "-o", path));
    read_parameters(path, text, sizeof text);
    assert_contains(text, "Sampler: DDPM,");
    assert_contains(text, ", Spacing: leading, ");
    assert_null(strstr(text, "Eta"));
}

static void quiet_prints_nothing(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--steps", "2", "-q", "-o", in_scratch(s, "a.png")));
    assert_string_equal(s->out, "");
}

static void a_folder_gets_one_file_an_image_that_n_and_batch_do_not_change(void **state)
{
    scratch *s = *state;
    const char *folder = in_scratch(s, "new/deep/"), *one = in_scratch(s, "one.png");
    assert_worked(s, run(s, "sample", MODEL, "-n", "5", "--steps", "3", "--batch", "2", "-o", folder));
    assert_int_equal(count_files(folder), 5);
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--first", "4", "--steps", "3", "-o", one));
    assert_same_file(in_scratch(s, "new/deep/00004.png"), one);
    assert_worked(s,
                  run(s, "sample", MODEL, "-n", "2", "--first", "5", "--steps", "3", "-o", in_scratch(s, "new/deep")));
    assert_true(exists(in_scratch(s, "new/deep/00006.png")));
    assert_int_equal(count_files(folder), 7);
}

/* With noise in every step all images walk together, whatever is evaluated at once. */
static void torch_noise_in_a_folder_does_not_depend_on_the_batch(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "sample", MODEL, "-n", "5", "--steps", "3", "--rng", "torch-cpu", "--batch", "2", "-o",
                         in_scratch(s, "two/")));
    assert_worked(s, run(s, "sample", MODEL, "-n", "5", "--steps", "3", "--rng", "torch-cpu", "--batch", "5", "-o",
                         in_scratch(s, "five/")));
    assert_int_equal(count_files(in_scratch(s, "two")), 5);
    for (int i = 0; i < 5; i++) {
        char name[2][32];
        snprintf(name[0], sizeof name[0], "two/%05d.png", i);
        snprintf(name[1], sizeof name[1], "five/%05d.png", i);
        assert_same_file(in_scratch(s, name[0]), in_scratch(s, name[1]));
    }
}

static void a_class_that_is_wrong_for_any_image_draws_none(void **state)
{
    scratch *s = *state;
    assert_refused(s,
                   run(s, "sample", "tests/goldens/unet/adm-scale-shift", "-n", "6", "--steps", "2", "--batch", "1",
                       "--class", "1,2,3,4,5,99", "-o", in_scratch(s, "many/")),
                   1);
    assert_contains(s->err, "class 99 ");
    assert_int_equal(count_files(s->folder), 0);
}

static void works_from_any_directory_with_blanks_and_dashes_in_names(void **state)
{
    scratch *s = *state;
    char model[2 * PATH_MAX];
    snprintf(model, sizeof model, "%s/%s", s->root, MODEL);
    assert_int_equal(symlink(model, in_scratch(s, "-a model")), 0);
    s->directory = s->folder;
    int code = run(s, "sample", "-n", "1", "--steps", "2", "-o", "-a picture.png", "--", "-a model");
    s->directory = NULL;
    assert_worked(s, code);
    assert_true(exists(in_scratch(s, "-a picture.png")));
}

static void an_existing_picture_is_replaced(void **state)
{
    scratch *s = *state;
    char text[2048];
    const char *path = in_scratch(s, "a.png");
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--steps", "2", "-o", path));
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--steps", "3", "-o", path));
    read_parameters(path, text, sizeof text);
    assert_contains(text, "Steps: 3,");
    assert_int_equal(count_files(s->folder), 1);
}

static void outputs_that_cannot_be_written_are_refused_before_work(void **state)
{
    scratch *s = *state;
    const char *file = in_scratch(s, "file");
    fclose(fopen(file, "w"));
    const char *outputs[] = {in_scratch(s, "missing/a.png"), in_scratch(s, "file/"), in_scratch(s, "file/a.png"),
                             in_scratch(s, "file/deep/"),    "/proc/a.png",          "/proc/nowhere/"};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        /* enough work to be noticed if it began */
        assert_refused(s, run(s, "sample", MODEL, "-n", "100000", "--steps", "1000", "-o", outputs[i]), 1);
        assert_contains(s->err, outputs[i]);
    }
    assert_int_equal(count_files(s->folder), 1);
    assert_refused(s, run(s, "predict", MODEL, "no.safetensors", "-o", in_scratch(s, "missing/o.safetensors")), 1);
    assert_refused(s, run(s, "predict", MODEL, "no.safetensors", "-o", s->folder), 1);
}

static void a_full_disk_is_one_line_and_leaves_nothing(void **state)
{
    scratch *s = *state;
    assert_refused(s, run(s, "sample", MODEL, "-n", "4", "--steps", "2", "-o", "/dev/full"), 1);
    struct stat status;
    assert_true(!stat("/dev/full", &status) && S_ISCHR(status.st_mode));
    const char *outputs[] = {in_scratch(s, "a.png"), in_scratch(s, "folder/")};
    for (int i = 0; i < 2; i++) {
        s->file_limit = 1024; /* pictures of noise are larger; what valgrind writes for itself is not */
        assert_refused(s, run(s, "sample", MODEL, "-n", "2", "--size", "24x24", "--steps", "2", "-q", "-o", outputs[i]),
                       1);
        assert_int_equal(count_files(s->folder), 0);
    }
}

static void a_full_standard_output_is_an_error(void **state)
{
    scratch *s = *state;
    char line[3 * PATH_MAX];
    snprintf(line, sizeof line, "'%s' info %s > /dev/full 2> '%s'", s->program, MODEL, in_scratch(s, "err"));
    int status = system(line);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    read_text(in_scratch(s, "err"), s->err, sizeof s->err);
    assert_contains(s->err, "halftone: standard output");
}

/* ---- JSON ---- */

static json_t *parse_output(const scratch *s)
{
    json_error_t error;
    json_t *object = json_loads(s->out, 0, &error);
    if (!object)
        fail_msg("not JSON: %s: <%.500s>", error.text, s->out);
    assert_true(json_is_object(object));
    return object;
}

static void sample_prints_json_about_what_it_made(void **state)
{
    scratch *s = *state;
    const char *folder = in_scratch(s, "out/");
    assert_worked(s, run(s, "sample", MODEL, "-n", "3", "--steps", "2", "--seed", "9", "--json", "-o", folder));
    json_t *o = parse_output(s);
    json_t *files = json_object_get(o, "files"), *settings = json_object_get(o, "settings");
    assert_int_equal(json_array_size(files), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(exists(json_string_value(json_array_get(files, i))));
    assert_int_equal(json_integer_value(json_object_get(settings, "seed")), 9);
    assert_int_equal(json_integer_value(json_object_get(settings, "steps")), 2);
    assert_string_equal(json_string_value(json_object_get(settings, "rng")), "philox");
    assert_true(json_real_value(json_object_get(o, "seconds")) > 0);
    assert_true(json_real_value(json_object_get(o, "images_per_second")) > 0);
    json_decref(o);
}

/* Names are bytes; JSON is UTF-8. */
static void json_stands_names_that_are_not_utf8(void **state)
{
    scratch *s = *state;
    const char *folder = in_scratch(s, "\xff\xc3\xa9/");
    assert_worked(s, run(s, "sample", MODEL, "-n", "1", "--steps", "2", "--json", "-o", folder));
    json_t *o = parse_output(s), *files = json_object_get(o, "files");
    assert_int_equal(json_array_size(files), 1);
    assert_contains(json_string_value(json_array_get(files, 0)), "/?\xc3\xa9/00000.png");
    json_decref(o);
}

/* uniform takes 31 evaluations for 30 steps: Steps say what was asked for, so that the picture can be drawn again. */
static void evaluations_are_counted_as_they_are(void **state)
{
    scratch *s = *state;
    char text[2048];
    const char *path = in_scratch(s, "a.png");
    const char *spacings[] = {"uniform", "adm"};
    for (int i = 0; i < 2; i++) {
        assert_worked(s, run(s, "sample", MODEL, "-n", "2", "--steps", "30", "--sampler", "ddim", "--spacing",
                             spacings[i], "--json", "-o", path));
        json_t *o = parse_output(s);
        assert_int_equal(json_integer_value(json_object_get(o, "evaluations")), i ? 60 : 62);
        json_decref(o);
        read_parameters(path, text, sizeof text);
        assert_contains(text, "Steps: 30,");
        if (i)
            assert_null(strstr(text, "Evaluations"));
        else
            assert_contains(text, ", Evaluations: 31, Model: ");
    }
    assert_worked(s, run(s, "sample", MODEL, "-n", "2", "--steps", "30", "--sampler", "ddim", "--spacing", "uniform",
                         "-o", path));
    assert_contains(s->out, "2 images, 31 steps");
}

static void info_lists_stages_and_kernels(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "info", MODEL, "--json", "--kernels"));
    json_t *o = parse_output(s);
    assert_string_equal(json_string_value(json_object_get(o, "class")), "UNet2DModel");
    assert_true(json_integer_value(json_object_get(o, "parameters")) > 1000);
    json_t *stages = json_object_get(json_object_get(o, "session"), "stages"), *ops = json_object_get(o, "ops");
    json_int_t in_stages = 0;
    for (size_t i = 0; i < json_array_size(stages); i++) {
        in_stages += json_integer_value(json_object_get(json_array_get(stages, i), "ops"));
        assert_true(json_is_integer(json_object_get(json_array_get(stages, i), "macs")));
    }
    assert_true(in_stages > 10);
    assert_int_equal(json_array_size(ops), in_stages);
    json_decref(o);
    assert_worked(s, run(s, "info", MODEL, "--kernels"));
    assert_contains(s->out, "conv_in");
}

static void info_prints_no_control_characters(void **state)
{
    scratch *s = *state;
    char model[2 * PATH_MAX];
    const char *link = in_scratch(s, "a\033[31mb");
    snprintf(model, sizeof model, "%s/%s", s->root, MODEL);
    assert_int_equal(symlink(model, link), 0);
    assert_worked(s, run(s, "info", link));
    assert_contains(s->out, "/a?[31mb: UNet2DModel\n");
}

static void bench_reports_speed_and_peak(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "bench", MODEL, "--batch", "1,2", "--seconds", "0.05", "--json"));
    json_t *o = parse_output(s);
    json_t *results = json_object_get(o, "results");
    assert_int_equal(json_array_size(results), 2);
    assert_true(json_real_value(json_object_get(o, "peak_gflops")) > 0);
    for (size_t i = 0; i < 2; i++) {
        json_t *r = json_array_get(results, i);
        assert_int_equal(json_integer_value(json_object_get(r, "batch")), i + 1);
        double median = json_real_value(json_object_get(r, "median_ms")),
               best = json_real_value(json_object_get(r, "min_ms"));
        assert_true(best > 0 && median >= best);
        assert_true(json_array_size(json_object_get(r, "kinds")) > 2);
    }
    json_decref(o);
}

/* ---- Ctrl-C ---- */

/* Wait until the child has its weights mapped: by then it has a handler for SIGINT.  Before, the signal would kill it,
 * as it should. */
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

static void interrupting_a_grid_leaves_nothing(void **state)
{
    scratch *s = *state;
    const char *arguments[] = {"sample", MODEL, "-n", "5000", "--steps", "1000", "-o", in_scratch(s, "grid.png"), NULL};
    pid_t child = start_program(s, arguments);
    wait_for_model(child);
    wait_ms(300);
    kill(child, SIGINT);
    assert_refused(s, finish_program(s, child), 130);
    assert_contains(s->err, "5000 of 5000 images not written");
    assert_int_equal(count_files(s->folder), 0);
}

static void interrupting_a_folder_leaves_whole_files(void **state)
{
    scratch *s = *state;
    char text[2048], name[32];
    const char *arguments[] = {
        "sample", MODEL, "-n", "100000", "--steps", "20", "--batch", "1", "-o", in_scratch(s, "many/"), NULL};
    pid_t child = start_program(s, arguments);
    for (int i = 0; i < 3000 && !exists(in_scratch(s, "many/00002.png")); i++)
        wait_ms(10);
    kill(child, SIGTERM);
    assert_refused(s, finish_program(s, child), 128 + SIGTERM);
    int n = count_files(in_scratch(s, "many"));
    assert_true(n >= 3);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "many/%05d.png", i);
        read_parameters(in_scratch(s, name), text, sizeof text);
    }
}

/* What a prediction takes: zeros for so many images. */
static void write_input(const char *path, int images)
{
    enum { IMAGE = 3 * 32 * 32 * 4 };
    char header[256];
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    int n = snprintf(header, sizeof header,
                     "{\"sample\":{\"dtype\":\"F32\",\"shape\":[%d,3,32,32],\"data_offsets\":[0,%d]},\"timestep\":{"
                     "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}}",
                     images, images * IMAGE, images * IMAGE, images * IMAGE + 4);
    unsigned char length[8] = {(unsigned char)n, (unsigned char)(n >> 8)};
    fwrite(length, 1, 8, f);
    fwrite(header, 1, (size_t)n, f);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(ftruncate(fileno(f), 8 + n + (off_t)images * IMAGE + 4), 0);
    assert_int_equal(fclose(f), 0);
}

static void interrupting_a_prediction_leaves_nothing(void **state)
{
    scratch *s = *state;
    write_input(in_scratch(s, "in.safetensors"), 2000); /* one at a time: takes long */
    const char *arguments[] = {"predict",
                               "models/cifar10",
                               in_scratch(s, "in.safetensors"),
                               "--batch",
                               "1",
                               "-o",
                               in_scratch(s, "out.safetensors"),
                               NULL};
    pid_t child = start_program(s, arguments);
    wait_for_model(child);
    wait_ms(300);
    kill(child, SIGINT);
    assert_refused(s, finish_program(s, child), 130);
    assert_contains(s->err, "interrupted");
    assert_int_equal(count_files(s->folder), 1);
}

static void stop_with(scratch *s, const char *const *arguments, int signal)
{
    pid_t child = start_program(s, arguments);
    wait_for_model(child);
    wait_ms(500);
    kill(child, signal);
    assert_refused(s, finish_program(s, child), 128 + signal);
    assert_contains(s->err, "interrupted: ");
}

/* What waits for a FIFO's reader stops at the first signal. */
static void interrupting_a_wait_for_a_reader_stops(void **state)
{
    scratch *s = *state;
    const char *fifo = in_scratch(s, "fifo"), *input = in_scratch(s, "in.safetensors");
    const char *drawing[] = {"sample", MODEL, "-n", "1", "--steps", "1", "-o", fifo, NULL};
    const char *prediction[] = {"predict", "models/cifar10", input, "-o", fifo, NULL};
    assert_int_equal(mkfifo(fifo, 0666), 0);
    write_input(input, 1);
    stop_with(s, drawing, SIGINT);
    stop_with(s, drawing, SIGTERM);
    stop_with(s, drawing, SIGHUP);
    stop_with(s, prediction, SIGINT);
}

/* As under nohup, and in a shell's background job. */
static void a_signal_that_was_ignored_stays_ignored(void **state)
{
    scratch *s = *state;
    const char *arguments[] = {"sample", MODEL, "-n", "5000", "--steps", "1000", "-o", in_scratch(s, "grid.png"), NULL};
    signal(SIGINT, SIG_IGN);
    pid_t child = start_program(s, arguments);
    signal(SIGINT, SIG_DFL);
    wait_for_model(child);
    kill(child, SIGINT);
    wait_ms(300);
    kill(child, SIGTERM);
    assert_refused(s, finish_program(s, child), 128 + SIGTERM); /* 130 if the first had come through */
}

static void steps_that_the_schedule_does_not_have_are_refused(void **state)
{
    scratch *s = *state;
    const char *path = in_scratch(s, "a.png");
    assert_refused(s, run(s, "sample", MODEL, "-n", "1", "--steps", "100000", "-o", path), 1);
    assert_refused(s, run(s, "sample", MODEL, "-n", "1", "--class", "3", "-o", path), 1);
    assert_int_equal(count_files(s->folder), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_scratch, close_scratch)

int main(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP}; /* whoever runs the tests may have them ignored */
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
    const struct CMUnitTest tests[] = {
        CASE(version_and_help_are_printed),
        CASE(every_command_has_help_with_examples),
        CASE(manual_names_every_option),
        CASE(wrong_command_lines_exit_2_with_one_line),
        CASE(a_picture_tells_how_it_was_made),
        CASE(a_picture_tells_what_the_model_decided),
        CASE(quiet_prints_nothing),
        CASE(a_folder_gets_one_file_an_image_that_n_and_batch_do_not_change),
        CASE(torch_noise_in_a_folder_does_not_depend_on_the_batch),
        CASE(a_class_that_is_wrong_for_any_image_draws_none),
        CASE(works_from_any_directory_with_blanks_and_dashes_in_names),
        CASE(an_existing_picture_is_replaced),
        CASE(outputs_that_cannot_be_written_are_refused_before_work),
        CASE(a_full_disk_is_one_line_and_leaves_nothing),
        CASE(a_full_standard_output_is_an_error),
        CASE(sample_prints_json_about_what_it_made),
        CASE(json_stands_names_that_are_not_utf8),
        CASE(evaluations_are_counted_as_they_are),
        CASE(info_lists_stages_and_kernels),
        CASE(info_prints_no_control_characters),
        CASE(bench_reports_speed_and_peak),
        CASE(interrupting_a_grid_leaves_nothing),
        CASE(interrupting_a_folder_leaves_whole_files),
        CASE(interrupting_a_prediction_leaves_nothing),
        CASE(interrupting_a_wait_for_a_reader_stops),
        CASE(a_signal_that_was_ignored_stays_ignored),
        CASE(steps_that_the_schedule_does_not_have_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
