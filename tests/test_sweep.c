/* test_sweep.c - halftone sweep: what its file may say, that its cells are what the single commands make, that it goes
 * on after kill -9, and that its page is whole and needs nothing else. */
#include "tests/sweeps.h"

#include <ctype.h>
#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/file.h>
#include <time.h>

#define MODEL "tests/goldens/pipeline/ddpm"

/* Two by two, and two cells more. */
#define HEAD                                                                                                           \
    "\"sample\":{\"n\":4,\"steps\":3,\"seed\":3},"                                                                     \
    "\"error\":{\"timesteps\":3,\"per-step\":2,\"steps\":6},"                                                          \
    "\"base\":{\"timesteps\":3,\"per-step\":2,\"calibrate.steps\":6,\"rounding\":\"nearest\"}"
#define GRID                                                                                                           \
    "{\"name\":\"Small & <short>\"," HEAD ",\"cells\":[{\"name\":\"float\",\"float\":true},"                           \
    "{\"name\":\"eight, \\\"fp8\\\"\",\"scheme\":\"fp8\"}],\"grid\":{\"timesteps\":[2,3],\"groups\":[1,0]}}"

static const char *sweep_file(scratch *s, const char *text)
{
    const char *path = in_scratch(s, "sweep.json");
    put(path, text);
    return path;
}

static void a_wrong_file_is_one_line_that_names_the_key(void **state)
{
    static const struct {
        const char *text, *named;
    } wrong[] = {
        {"[]", "object"},
        {"{\"cells\":[}", "sweep.json"},
        {"{}", "no cells"},
        {"{\"cells\":[]}", "no cells"},
        {"{\"cell\":[]}", "did you mean \"cells\""},
        {"{\"cells\":{}}", "\"cells\" must be a list"},
        {"{\"cells\":[3]}", "cells[0]"},
        {"{\"cells\":[{}]}", "cells[0]: \"name\""},
        {"{\"cells\":[{\"name\":7}]}", "cells[0]: \"name\""},
        {"{\"cells\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "two cells are called \"a\""},
        {"{\"cells\":[{\"name\":\"a\",\"roundng\":\"nearest\"}]}", "did you mean \"rounding\""},
        {"{\"cells\":[{\"name\":\"a\",\"rounding\":\"up\"}]}", "\"rounding\" is \"up\""},
        {"{\"cells\":[{\"name\":\"a\",\"groups\":\"1\"}]}", "\"groups\" is \"1\""},
        {"{\"cells\":[{\"name\":\"a\",\"groups\":1.5}]}", "\"groups\" is 1.5"},
        {"{\"cells\":[{\"name\":\"a\",\"groups\":-1}]}", "\"groups\" is -1"},
        {"{\"cells\":[{\"name\":\"a\",\"no-split\":1}]}", "true or false"},
        {"{\"cells\":[{\"name\":\"a\",\"calib\":\"x\"}]}", "\"calib\""},
        {"{\"cells\":[{\"name\":\"a\",\"output\":\"x\"}]}", "\"output\""},
        {"{\"cells\":[{\"name\":\"a\",\"sample.beside\":\"x\"}]}", "sample.beside"},
        {"{\"cells\":[{\"name\":\"a\",\"sample.groups\":1}]}", "sample.groups"},
        {"{\"cells\":[{\"name\":\"a\",\"weights\":\"int5\"}]}", "int5"},
        {"{\"cells\":[{\"name\":\"a\",\"dynamic\":true,\"no-split\":true}]}", "cell \"a\""},
        {"{\"cells\":[{\"name\":\"a\",\"float\":1}]}", "\"float\" must be true or false"},
        {"{\"cells\":[{\"name\":\"a\",\"float\":true,\"scheme\":\"fp8\"}]}", "\"scheme\" beside \"float\""},
        {"{\"grid\":[]}", "\"grid\""},
        {"{\"grid\":{}}", "\"grid\""},
        {"{\"grid\":{\"groups\":1}}", "\"groups\" must be a list"},
        {"{\"grid\":{\"groups\":[]}}", "\"groups\" must be a list"},
        {"{\"grid\":{\"group\":[1]}}", "did you mean \"groups\""},
        {"{\"grid\":{\"groups\":[1,1]}}", "two cells are called \"groups=1\""},
        {"{\"base\":3,\"cells\":[{\"name\":\"a\"}]}", "\"base\""},
        {"{\"base\":{\"x\":1},\"cells\":[{\"name\":\"a\"}]}", "\"x\""},
        {"{\"sample\":{\"m\":1},\"cells\":[{\"name\":\"a\"}]}", "sample: unknown key \"m\""},
        {"{\"sample\":{\"n\":\"x\"},\"cells\":[{\"name\":\"a\"}]}", "sample: \"n\""},
        {"{\"sample\":[],\"cells\":[{\"name\":\"a\"}]}", "\"sample\""},
        {"{\"sample\":{\"init\":\"x\"},\"cells\":[{\"name\":\"a\"}]}", "unknown key \"init\""},
        {"{\"sample\":{\"prompts\":3},\"cells\":[{\"name\":\"a\"}]}", "\"prompts\" must be the name of a file"},
        {"{\"sample\":{\"prompts\":\"none\"},\"cells\":[{\"name\":\"a\"}]}", "none: No such file"},
        {"{\"sample\":{\"prompts\":\"models/emoji/prompts.txt\"},\"cells\":[{\"name\":\"a\"}]}", "takes no prompt"},
        {"{\"sample\":{\"class\":1},\"cells\":[{\"name\":\"a\"}]}", "takes no class"},
        {"{\"error\":{\"rounding\":1},\"cells\":[{\"name\":\"a\"}]}", "error: unknown key \"rounding\""},
        {"{\"metrics\":\"fd\",\"cells\":[{\"name\":\"a\"}]}", "\"metrics\""},
        {"{\"metrics\":[\"fdd\"],\"cells\":[{\"name\":\"a\"}]}", "metrics[0]"},
        {"{\"features\":1,\"cells\":[{\"name\":\"a\"}]}", "\"features\""},
        {"{\"name\":1,\"cells\":[{\"name\":\"a\"}]}", "\"name\""},
    };
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_refused(s, run(s, "sweep", MODEL, sweep_file(s, wrong[i].text), "-o", out), 1);
        if (!strstr(s->err, wrong[i].named))
            fail_msg("%s: no <%s> in <%s>", wrong[i].text, wrong[i].named, s->err);
        assert_false(exists(out));
    }
}

static void wrong_command_lines_exit_2_and_wrong_models_1(void **state)
{
    scratch *s = *state;
    const char *file = sweep_file(s, GRID), *out = in_scratch(s, "out");
    assert_refused(s, run(s, "sweep", MODEL), 2);
    assert_refused(s, run(s, "sweep", MODEL, file), 2);
    assert_refused(s, run(s, "sweep", MODEL, file, "-o", out, "--threads", "x"), 2);
    assert_refused(s, run(s, "sweep", in_scratch(s, "none"), file, "-o", out), 1);
    assert_refused(s, run(s, "sweep", MODEL, in_scratch(s, "none.json"), "-o", out), 1);
    assert_refused(s, run(s, "sweep", "models/cifar10-w4a8", file, "-o", out), 1);
    assert_false(exists(out));
}

static void a_dry_run_lists_what_cells_share(void **state)
{
    scratch *s = *state;
    assert_worked(s, run(s, "sweep", MODEL, sweep_file(s, GRID), "--dry-run"));
    assert_non_null(strstr(s->out, "6 cells, 0 done: 2 calibrations, 5 quantized models, 1 sets"));
    assert_non_null(strstr(s->out, "calib of 3"));
    assert_int_equal(count_files(s->folder), 1);
}

static void every_sweep_in_bench_can_be_read(void **state)
{
    static const char *const names[] = {"schemes", "methods", "layers", "calibration"};
    scratch *s = *state;
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "bench/%s.json", names[i]);
        assert_worked(s, run(s, "sweep", "models/cifar10", path, "--dry-run"));
    }
    const char *summary = strstr(s->out, " cells, 0 done");
    assert_non_null(summary);
    while (summary > s->out && isdigit((unsigned char)summary[-1]))
        summary--;
    assert_true(strtol(summary, NULL, 10) >= 24); /* the last is the one of calibration settings */
}

/* ---- results ---- */

static json_t *sweep_json(scratch *s, const char *file, const char *out)
{
    json_error_t error;
    assert_worked(s, run(s, "sweep", MODEL, file, "--keep", "--json", "--threads", "1", "-o", out));
    json_t *object = json_loads(s->out, 0, &error);
    if (!object)
        fail_msg("not JSON: %s: <%.500s>", error.text, s->out);
    return object;
}

/* The one file of a pattern in a folder has the bytes of another. */
static void assert_kept(scratch *s, const char *out, const char *pattern, const char *other)
{
    static char a[1 << 20], b[1 << 20];
    glob_t found;
    assert_int_equal(glob(under(s, out, pattern), 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    FILE *f = fopen(found.gl_pathv[0], "rb"), *g = fopen(other, "rb");
    assert_non_null(f);
    assert_non_null(g);
    size_t n = fread(a, 1, sizeof a, f), m = fread(b, 1, sizeof b, g);
    assert_in_range(n, 1000, sizeof a - 1);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    fclose(f);
    fclose(g);
    globfree(&found);
}

static void cells_are_what_the_single_commands_make(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out"), *calib = in_scratch(s, "calib.safetensors"), *q = in_scratch(s, "q");
    json_t *o = sweep_json(s,
                           sweep_file(s, "{" HEAD ",\"cells\":[{\"name\":\"a\",\"scheme\":\"w8a8\",\"groups\":1,"
                                         "\"timesteps\":2,\"seed\":5,\"no-split\":true}]}"),
                           out);
    json_t *cell = json_array_get(json_object_get(o, "cells"), 0);
    char picture[96];
    snprintf(picture, sizeof picture, "images/%s.png", json_string_value(json_object_get(cell, "id")));
    assert_worked(
        s, run(s, "calibrate", MODEL, "--timesteps", "2", "-n", "2", "--steps", "6", "--seed", "5", "-q", "-o", calib));
    assert_worked(s, run(s, "quantize", MODEL, "--scheme", "w8a8", "--groups", "1", "--seed", "5", "--no-split",
                         "--rounding", "nearest", "--calib", calib, "-q", "-o", q));
    assert_kept(s, out, "cache/calib-*.safetensors", calib);
    assert_kept(s, out, "cache/model-*/unet/*.safetensors", under(s, q, "unet/diffusion_pytorch_model.safetensors"));
    assert_worked(s, run(s, "fid", q, MODEL, "-m", "psnr", "-n", "4", "--steps", "3", "--seed", "3", "--json"));
    json_t *fid = json_loads(s->out, 0, NULL);
    double of_pixels = json_real_value(json_object_get(json_object_get(fid, "metrics"), "psnr"));
    double of_values = json_real_value(json_object_get(cell, "psnr_mean"));
    assert_true(of_values > 10);
    assert_true(fabs(of_pixels - of_values) < 0.2); /* 8 bits on one side */
    json_decref(fid);
    assert_worked(s, run(s, "info", q, "--json"));
    json_t *info = json_loads(s->out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(info, "weight_bytes")),
                     (json_int_t)json_real_value(json_object_get(cell, "weight_bytes")));
    json_decref(info);
    assert_true(json_real_value(json_object_get(cell, "error")) > 0);
    assert_true(exists(under(s, out, picture)));
    json_decref(o);
}

static json_t *cell_of(json_t *o, size_t i)
{
    return json_array_get(json_object_get(o, "cells"), i);
}

/* Latents become pictures, prompts are taken in turn: as halftone fid has it. */
static void prompts_are_drawn_as_fid_draws_them(void **state)
{
    scratch *s = *state;
    static const char prompted[] = "tests/goldens/pipeline/sd1";
    const char *out = in_scratch(s, "out"), *list = in_scratch(s, "list.txt");
    char text[PATH_MAX + 300];
    glob_t found;
    put(list, "a dog\n(a cat:1.2)\n");
    snprintf(
        text, sizeof text,
        "{\"sample\":{\"n\":3,\"steps\":2,\"guidance\":2,\"prompts\":\"%s\"},\"error\":{\"timesteps\":2,\"per-step\":2,"
        "\"steps\":2},\"base\":{\"timesteps\":2,\"per-step\":2,\"calibrate.steps\":2,\"rounding\":\"nearest\"},"
        "\"cells\":[{\"name\":\"a\",\"scheme\":\"w8a8\"}]}",
        list);
    const char *file = sweep_file(s, text);
    assert_worked(s, run(s, "sweep", prompted, file, "--keep", "--json", "-o", out));
    json_t *o = json_loads(s->out, 0, NULL);
    double of_values = json_real_value(json_object_get(cell_of(o, 0), "psnr_mean"));
    assert_true(json_real_value(json_object_get(cell_of(o, 0), "error")) > 0);
    json_decref(o);
    assert_int_equal(glob(under(s, out, "cache/model-????????????????"), 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    assert_worked(s, run(s, "fid", found.gl_pathv[0], prompted, "-m", "psnr", "-n", "3", "--steps", "2", "--guidance",
                         "2", "--prompts", list, "--json", "-q"));
    globfree(&found);
    o = json_loads(s->out, 0, NULL);
    double of_pixels = json_real_value(json_object_get(json_object_get(o, "metrics"), "psnr"));
    assert_true(of_values > 10 && fabs(of_pixels - of_values) < 0.5); /* 8 bits on one side */
    json_decref(o);
    put(list, "a dog\n(a cat:1.3)\n"); /* other words, another cell */
    assert_worked(s, run(s, "sweep", prompted, file, "--dry-run", "-o", out));
    assert_non_null(strstr(s->out, "1 cells, 0 done"));
}

/* Every option of sample that a sweep takes changes what is drawn. */
static void settings_of_samples_are_used(void **state)
{
    static const char *const settings[] = {"\"sample.sigmas\":\"karras\"", "\"sample.first\":3",
                                           "\"sample.sampler\":\"heun\"", "\"sample.seed\":4"};
    enum { CELLS = 4 };
    scratch *s = *state;
    char text[1024] =
        "{\"sample\":{\"n\":1,\"steps\":4,\"sampler\":\"euler\"},\"cells\":[{\"name\":\"a\",\"float\":true}";
    static unsigned char pictures[CELLS + 1][1 << 16];
    for (int i = 0; i < CELLS; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), ",{\"name\":\"%d\",\"float\":true,%s}", i,
                 settings[i]);
    strcat(text, "]}");
    const char *out = in_scratch(s, "out");
    assert_worked(s, run(s, "sweep", MODEL, sweep_file(s, text), "--json", "-q", "-o", out));
    json_t *o = json_loads(s->out, 0, NULL);
    for (size_t i = 0; i <= CELLS; i++) {
        char name[64];
        snprintf(name, sizeof name, "images/%s.png", json_string_value(json_object_get(cell_of(o, i), "id")));
        FILE *f = fopen(under(s, out, name), "rb");
        assert_non_null(f);
        assert_true(fread(pictures[i], 1, sizeof pictures[i], f) > 100);
        fclose(f);
        const void *pixels = memmem(pictures[i], sizeof pictures[i], "IDAT", 4);
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(memmem(pictures[k], sizeof pictures[k], "IDAT", 4), pixels, 64);
    }
    json_decref(o);
}

static void sixteen_images_are_drawn_if_nothing_is_said(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    assert_worked(s, run(s, "sweep", MODEL,
                         sweep_file(s, "{\"sample\":{\"steps\":1},\"cells\":[{\"name\":\"a\",\"float\":true}]}"),
                         "--json", "-q", "-o", out));
    json_t *o = json_loads(s->out, 0, NULL);
    assert_int_equal(json_real_value(json_object_get(cell_of(o, 0), "sample.number")), 16);
    json_decref(o);
}

/* ---- going on ---- */

static void a_killed_sweep_goes_on_and_ends_as_one_that_was_not(void **state)
{
    scratch *s = *state;
    const char *file = sweep_file(s, GRID), *whole = in_scratch(s, "whole"), *killed = in_scratch(s, "killed");
    assert_worked(s, run(s, "sweep", MODEL, file, "-q", "--threads", "1", "-o", whole));
    assert_false(exists(under(s, whole, "cache")));
    const char *csv = under(s, killed, "results.csv");
    pid_t child =
        start_program(s, (const char *const[]){"sweep", MODEL, file, "-q", "--threads", "1", "-o", killed, NULL});
    for (int i = 0; i < 100000 && count_lines(csv) < 3; i++) /* the head and two rows */
        nanosleep(&(struct timespec){0, 2000000L}, NULL);
    kill(child, SIGKILL);
    assert_int_equal(finish_program(s, child), 1000 + SIGKILL);
    int before = count_lines(csv);
    assert_in_range(before, 3, 6); /* not all: there was something left to do */
    assert_worked(s, run(s, "sweep", MODEL, file, "--json", "--threads", "1", "-o", killed));
    json_t *o = json_loads(s->out, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(o, "reused")), before - 1);
    assert_int_equal(json_integer_value(json_object_get(o, "made")), 6 - (before - 1));
    json_decref(o);
    char *a = rows_of(s, whole), *b = rows_of(s, killed);
    assert_string_equal(a, b);
    assert_false(exists(under(s, killed, "cache")));
    free(a);
    free(b);
}

static void a_changed_sweep_makes_only_what_is_new(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    json_t *o = sweep_json(s, sweep_file(s, "{" HEAD ",\"grid\":{\"groups\":[0,1]}}"), out);
    assert_int_equal(json_integer_value(json_object_get(o, "made")), 2);
    json_decref(o);
    o = sweep_json(s,
                   sweep_file(s, "{" HEAD ",\"cells\":[{\"name\":\"one\",\"groups\":1},{\"name\":\"uno\",\"groups\":1},"
                                 "{\"name\":\"two\",\"groups\":2}]}"),
                   out);
    assert_int_equal(json_integer_value(json_object_get(o, "made")), 1);
    assert_int_equal(json_integer_value(json_object_get(o, "reused")), 2);
    const json_t *cells = json_object_get(o, "cells");
    assert_int_equal(json_array_size(cells), 3);
    assert_string_equal(json_string_value(json_object_get(json_array_get(cells, 1), "cell")), "uno");
    json_decref(o);
    assert_int_equal(count_lines(under(s, out, "results.csv")), 1 + 3 + 1); /* the old row for groups=0 stays */
}

static void a_cell_that_cannot_be_is_named_and_the_others_are_made(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    const char *file = sweep_file(s, "{" HEAD ",\"cells\":[{\"name\":\"few\",\"bits\":1},{\"name\":\"good\"}]}");
    assert_refused(s, run(s, "sweep", MODEL, file, "-q", "-o", out), 1);
    assert_non_null(strstr(s->err, "cell \"few\": "));
    assert_int_equal(count_lines(under(s, out, "results.csv")), 2);
    assert_true(exists(under(s, out, "index.html")));
}

static void a_second_sweep_into_the_same_folder_refuses(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    assert_int_equal(mkdir(out, 0777), 0);
    int lock = open(under(s, out, ".lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_refused(s, run(s, "sweep", MODEL, sweep_file(s, GRID), "-o", out), 1);
    assert_non_null(strstr(s->err, "another sweep"));
    close(lock);
    put(under(s, out, "results.csv"), "something else\n");
    assert_refused(s, run(s, "sweep", MODEL, sweep_file(s, GRID), "-o", out), 1);
    assert_non_null(strstr(s->err, "is not the results of a sweep"));
}

/* ---- the page ---- */

/* Tags open and close in order. */
static void assert_well_formed(const char *page)
{
    char names[64][16];
    int depth = 0, most = 0;
    for (const char *at = page; (at = strchr(at, '<')); at++) {
        char name[16] = "";
        const char *end = strchr(at, '>');
        assert_non_null(end);
        sscanf(at + (at[1] == '/' ? 2 : 1), "%15[a-zA-Z0-9]", name);
        if (at[1] == '!' || end[-1] == '/')
            continue;
        if (at[1] == '/') {
            assert_true(depth > 0);
            assert_string_equal(names[--depth], name);
        } else {
            assert_true(name[0] && depth < 64);
            strcpy(names[depth++], name);
        }
        most = depth > most ? depth : most;
    }
    assert_int_equal(depth, 0);
    assert_true(most > 3);
}

static int count_of(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)); at++)
        n++;
    return n;
}

static void the_page_is_whole_and_needs_nothing_else(void **state)
{
    static char page[1 << 20];
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    assert_worked(s, run(s, "sweep", MODEL, sweep_file(s, GRID), "-q", "--threads", "1", "-o", out));
    read_text(under(s, out, "index.html"), page, sizeof page);
    assert_well_formed(page);
    assert_int_equal(count_of(page, "http"), count_of(page, "xmlns=\"http://www.w3.org/2000/svg\""));
    assert_int_equal(count_of(page, "<script"), 0);
    assert_int_equal(count_of(page, "src=\""), count_of(page, "src=\"data:image/png;base64,"));
    assert_int_equal(count_of(page, "src=\""), 6);          /* float once, and five cells */
    assert_int_equal(count_of(page, "<svg"), 2 * 2 + 1);    /* two metrics against two settings, the curves */
    assert_int_equal(count_of(page, "Small & <short>"), 0); /* escaped */
    assert_int_equal(count_of(page, "<h1>Small &amp; &lt;short&gt;</h1>"), 1);
    assert_int_equal(count_of(page, "nan"), 0);
    for (const char *at = page; (at = strchr(at, '&')); at++)
        assert_true(!strncmp(at, "&amp;", 5) || !strncmp(at, "&lt;", 4) || !strncmp(at, "&gt;", 4) ||
                    !strncmp(at, "&quot;", 6));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_scratch, close_scratch)
    const struct CMUnitTest tests[] = {
        TEST(a_wrong_file_is_one_line_that_names_the_key),
        TEST(wrong_command_lines_exit_2_and_wrong_models_1),
        TEST(a_dry_run_lists_what_cells_share),
        TEST(every_sweep_in_bench_can_be_read),
        TEST(cells_are_what_the_single_commands_make),
        TEST(prompts_are_drawn_as_fid_draws_them),
        TEST(settings_of_samples_are_used),
        TEST(sixteen_images_are_drawn_if_nothing_is_said),
        TEST(a_killed_sweep_goes_on_and_ends_as_one_that_was_not),
        TEST(a_changed_sweep_makes_only_what_is_new),
        TEST(a_cell_that_cannot_be_is_named_and_the_others_are_made),
        TEST(a_second_sweep_into_the_same_folder_refuses),
        TEST(the_page_is_whole_and_needs_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
