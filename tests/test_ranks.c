/* test_ranks.c - several processes under mpirun: what they make is what one makes, byte for byte, and they end
 * together, with one line. */
#include "tests/sweeps.h"

#include <jansson.h>
#include <signal.h>
#include <time.h>

#include "tests/pictures.h"

#define MODEL "tests/goldens/pipeline/ddpm"

/* ---- running ---- */

/* Where PATH has mpirun. */
static int find_mpirun(char path[PATH_MAX])
{
    char folders[4 * PATH_MAX];
    snprintf(folders, sizeof folders, "%s", getenv("PATH"));
    for (char *at = strtok(folders, ":"); at; at = strtok(NULL, ":"))
        if (snprintf(path, PATH_MAX, "%s/mpirun", at) < PATH_MAX && !access(path, X_OK))
            return 0;
    return -1;
}

/* As root, on fewer processors than processes, without mpirun's own words; OpenMPI's leaks are not ours. */
static int allow_mpirun(void **state)
{
    static char options[256];
    const char *asan = getenv("ASAN_OPTIONS");
    (void)state;
    snprintf(options, sizeof options, "%s%sdetect_leaks=0", asan ? asan : "", asan ? ":" : "");
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("ASAN_OPTIONS", options, 1); /* of the programs that this one starts */
    return 0;
}

static pid_t start_ranks(scratch *s, const char *n, const char *const *arguments)
{
    static char program[2 * PATH_MAX];
    const char *all[MAX_ARGUMENTS] = {"-q", "--oversubscribe", "--bind-to", "none", "-n", n, program};
    char mpirun[PATH_MAX];
    int used = 7;
    for (int i = 0; arguments[i]; i++) {
        assert_in_range(used, 0, MAX_ARGUMENTS - 2);
        all[used++] = arguments[i];
    }
    assert_int_equal(find_mpirun(mpirun), 0);
    memcpy(program, s->program, sizeof program);
    strcpy(s->program, mpirun);
    pid_t child = start_program(s, all);
    memcpy(s->program, program, sizeof program);
    return child;
}

#define ranks(s, n, ...) finish_program(s, start_ranks(s, n, (const char *const[]){__VA_ARGS__, NULL}))

static void assert_same_file(const char *a, const char *b)
{
    static char one[1 << 18], other[1 << 18];
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    assert_non_null(f);
    assert_non_null(g);
    size_t n = fread(one, 1, sizeof one, f), m = fread(other, 1, sizeof other, g);
    assert_in_range(n, 50, sizeof one - 1);
    if (n != m || memcmp(one, other, n) != 0)
        fail_msg("%s and %s differ", a, b);
    fclose(f);
    fclose(g);
}

/* ---- sample ---- */

static void pictures_have_the_same_bytes_with_any_number_of_processes(void **state)
{
    static const char *const numbers[] = {"2", "3"};
    scratch *s = *state;
    const char *alone = in_scratch(s, "alone.png"), *made = in_scratch(s, "made.png");
#define DRAWN                                                                                                          \
    "sample", MODEL, "-n", "5", "--first", "2", "--steps", "3", "--rng", "torch-cpu", "--eta", "0.5", "--threads",     \
        "1", "-q", "-o"
    assert_worked(s, run(s, DRAWN, alone));
    for (int i = 0; i < 2; i++) {
        assert_worked(s, ranks(s, numbers[i], DRAWN, made));
        assert_same_file(alone, made);
        unlink(made);
    }
    assert_worked(s, run(s, "sample", MODEL, "--beside", MODEL, "-n", "3", "--steps", "2", "-q", "-o", alone));
    assert_worked(s, ranks(s, "2", "sample", MODEL, "--beside", MODEL, "-n", "3", "--steps", "2", "-q", "-o", made));
    assert_same_file(alone, made);
}

static void a_folder_has_the_same_files_with_any_number_of_processes(void **state)
{
    static const char *const numbers[] = {"2", "3"};
    scratch *s = *state;
    const char *alone = in_scratch(s, "alone"), *made = in_scratch(s, "made");
    assert_int_equal(mkdir(alone, 0777), 0);
    assert_worked(s, run(s, "sample", MODEL, "-n", "5", "--steps", "3", "--threads", "1", "-q", "-o", alone));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mkdir(made, 0777), 0);
        assert_worked(s, ranks(s, numbers[i], "sample", MODEL, "-n", "5", "--steps", "3", "--json", "-o", made));
        json_t *o = json_loads(s->out, 0, NULL); /* of one process alone */
        assert_int_equal(json_integer_value(json_object_get(o, "images")), 5);
        assert_int_equal(json_integer_value(json_object_get(o, "evaluations")), 15);
        assert_int_equal(json_array_size(json_object_get(o, "files")), 5);
        json_decref(o);
        assert_int_equal(count_files(made), 5);
        for (int k = 0; k < 5; k++) {
            char name[16];
            snprintf(name, sizeof name, "%05d.png", k);
            assert_same_file(under(s, alone, name), under(s, made, name));
        }
        remove_tree(made);
    }
}

static void more_processes_than_images_are_well(void **state)
{
    scratch *s = *state;
    assert_worked(s, ranks(s, "3", "sample", MODEL, "-n", "1", "--steps", "2", "-q", "-o", in_scratch(s, "one.png")));
    assert_int_equal(count_files(s->folder), 1);
}

/* ---- fid ---- */

static char *metrics_of(const scratch *s)
{
    json_t *o = json_loads(s->out, 0, NULL);
    char *text = json_dumps(json_object_get(o, "metrics"), JSON_COMPACT | JSON_REAL_PRECISION(17));
    assert_non_null(text);
    json_decref(o);
    return text;
}

static void metrics_are_the_same_with_any_number_of_processes(void **state)
{
    static const char *const numbers[] = {"2", "3"};
    scratch *s = *state;
    const char *set = in_scratch(s, "set");
    assert_int_equal(mkdir(set, 0777), 0);
    assert_worked(
        s, run(s, "sample", MODEL, "-n", "66", "--steps", "1", "--threads", "1", "--seed", "9", "-q", "-o", set));
#define MEASURED                                                                                                       \
    "fid", MODEL, set, "-n", "66", "--steps", "1", "--threads", "1", "--features", "resnet18_w24", "--resize",         \
        "bilinear", "--metrics", "fid,kid,is,pr,psnr,distance", "--kid-size", "50", "--json", "-q"
    assert_worked(s, run(s, MEASURED));
    char *alone = metrics_of(s);
    for (int i = 0; i < 2; i++) {
        assert_worked(s, ranks(s, numbers[i], MEASURED));
        char *made = metrics_of(s);
        assert_string_equal(alone, made);
        free(made);
    }
    free(alone);
}

static void bad_pictures_are_told_of_as_by_one_process(void **state)
{
    scratch *s = *state;
    const char *set = in_scratch(s, "set");
    char alone[sizeof s->err], name[16];
    assert_int_equal(mkdir(set, 0777), 0);
    for (int i = 0; i < 66; i++) {
        snprintf(name, sizeof name, "%05d.png", i);
        if (i == 3 || i == 40 || i == 65)
            put(under(s, set, name), "no picture");
        else
            assert_int_equal(write_drawn(under(s, set, name), (unsigned)i, 8, 8, 3), 0);
    }
#define SKIPPED                                                                                                        \
    "fid", set, set, "--features", "resnet18_w24", "--resize", "bilinear", "--threads", "1", "--skip-bad",             \
        "--save-stats"
    assert_int_equal(run(s, SKIPPED), 0);
    memcpy(alone, s->err, sizeof alone);
    assert_int_equal(ranks(s, "3", SKIPPED), 0);
    assert_string_equal(alone, s->err);
    assert_int_equal(count_files(s->folder), 2);
    int code = ranks(s, "2", "fid", set, set, "--features", "resnet18_w24", "--resize", "bilinear");
    assert_refused(s, code, 1);
    assert_non_null(strstr(s->err, "3 of 66 pictures cannot be read; the first: "));
}

/* ---- sweep ---- */

/* Three cells share a calibration, which are more than a rank's; two are the same. */
#define SWEEP                                                                                                          \
    "{\"sample\":{\"n\":4,\"steps\":3},\"error\":{\"timesteps\":2,\"per-step\":2,\"steps\":4},"                        \
    "\"base\":{\"timesteps\":2,\"per-step\":2,\"calibrate.steps\":4,\"rounding\":\"nearest\"},"                        \
    "\"cells\":[{\"name\":\"float\",\"float\":true},{\"name\":\"a\",\"groups\":1},{\"name\":\"b\",\"groups\":1},"      \
    "{\"name\":\"c\",\"scheme\":\"w8a8\"},{\"name\":\"d\",\"scheme\":\"w8a8\",\"sample.steps\":2},"                    \
    "{\"name\":\"e\",\"calibrate.seed\":3}]}"

static void a_sweep_has_the_same_rows_with_any_number_of_processes(void **state)
{
    static const char *const numbers[] = {"2", "3"};
    scratch *s = *state;
    const char *file = in_scratch(s, "sweep.json"), *alone = in_scratch(s, "alone"), *made = in_scratch(s, "made");
    put(file, SWEEP);
    assert_worked(s, run(s, "sweep", MODEL, file, "-q", "--threads", "1", "-o", alone));
    char *want = rows_of(s, alone);
    for (int i = 0; i < 2; i++) {
        assert_worked(s, ranks(s, numbers[i], "sweep", MODEL, file, "--json", "--threads", "1", "-o", made));
        json_t *o = json_loads(s->out, 0, NULL);
        assert_int_equal(json_array_size(json_object_get(o, "cells")), 6);
        assert_int_equal(json_integer_value(json_object_get(o, "made")), 5);
        json_decref(o);
        char *rows = rows_of(s, made);
        assert_string_equal(want, rows);
        free(rows);
        assert_true(exists(under(s, made, "index.html")));
        assert_false(exists(under(s, made, "cache")));
        remove_tree(made);
    }
    free(want);
}

/* One of the processes that mpirun has started. */
static pid_t a_rank_of(pid_t mpirun)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)mpirun, (int)mpirun);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    pid_t rank = (pid_t)strtol(text, NULL, 10);
    assert_true(rank > 1);
    return rank;
}

static void wait_for_lines(const char *path, int lines)
{
    for (int i = 0; i < 10000 && count_lines(path) < lines; i++)
        nanosleep(&(struct timespec){0, 2000000L}, NULL);
    assert_true(count_lines(path) >= lines);
}

static void a_sweep_whose_rank_was_killed_goes_on_with_another_number(void **state)
{
    scratch *s = *state;
    const char *file = in_scratch(s, "sweep.json"), *whole = in_scratch(s, "whole"), *killed = in_scratch(s, "killed");
    const char *csv = under(s, killed, "results.csv");
    put(file, SWEEP);
    assert_worked(s, run(s, "sweep", MODEL, file, "-q", "--threads", "1", "-o", whole));
    pid_t child =
        start_ranks(s, "2", (const char *const[]){"sweep", MODEL, file, "-q", "--threads", "1", "-o", killed, NULL});
    wait_for_lines(csv, 2); /* the head and a row */
    kill(a_rank_of(child), SIGKILL);
    assert_true(finish_program(s, child) != 0);
    int before = count_lines(csv);
    assert_true(before >= 2);
    assert_worked(s, ranks(s, "3", "sweep", MODEL, file, "-q", "--threads", "1", "-o", killed));
    char *a = rows_of(s, whole), *b = rows_of(s, killed);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void a_cell_that_cannot_be_is_told_of_by_whatever_rank_has_it(void **state)
{
    scratch *s = *state;
    const char *file = in_scratch(s, "sweep.json"), *out = in_scratch(s, "out");
    put(file, "{\"sample\":{\"n\":2,\"steps\":2},\"error\":{\"timesteps\":2,\"per-step\":1,\"steps\":2},\"base\":{"
              "\"timesteps\":2,\"per-step\":1,\"calibrate.steps\":2,\"rounding\":\"nearest\"},\"cells\":["
              "{\"name\":\"good\"},{\"name\":\"few\",\"bits\":1},{\"name\":\"fine\",\"scheme\":\"w8a8\"}]}");
    assert_refused(s, ranks(s, "3", "sweep", MODEL, file, "-q", "--threads", "1", "-o", out), 1);
    assert_non_null(strstr(s->err, "cell \"few\": "));
    assert_int_equal(count_lines(under(s, out, "results.csv")), 3);
}

/* ---- ends ---- */

static void an_error_on_one_rank_ends_all_with_its_line(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out");
    assert_int_equal(mkdir(out, 0777), 0);
    assert_int_equal(mkdir(under(s, out, "00004.png"), 0777), 0); /* the third rank's */
    assert_refused(s, ranks(s, "3", "sample", MODEL, "-n", "6", "--steps", "2", "-o", out), 1);
    assert_non_null(strstr(s->err, "00004.png"));
}

static void an_error_of_all_ranks_is_one_line(void **state)
{
    scratch *s = *state;
    assert_refused(s, ranks(s, "3", "sample", in_scratch(s, "none"), "-o", in_scratch(s, "x.png")), 1);
    assert_refused(s, ranks(s, "2", "fid", "--metrics", "fad", MODEL, MODEL), 2);
    assert_refused(s, ranks(s, "2", "info", MODEL), 1);
    assert_non_null(strstr(s->err, "one process"));
    assert_int_equal(count_files(s->folder), 0);
}

static void processes_of_another_launcher_refuse(void **state)
{
    scratch *s = *state;
    setenv("PMI_SIZE", "3", 1);
    assert_refused(s, run(s, "sample", MODEL, "-q", "-o", in_scratch(s, "x.png")), 1);
    assert_non_null(strstr(s->err, "3 processes"));
    setenv("PMI_RANK", "1", 1); /* the first has told */
    assert_int_equal(run(s, "sample", MODEL, "-q", "-o", in_scratch(s, "x.png")), 1);
    assert_string_equal(s->err, "");
    unsetenv("PMI_SIZE");
    unsetenv("PMI_RANK");
    assert_int_equal(count_files(s->folder), 0);
}

static void an_interrupt_is_one_line_and_leaves_whole_files(void **state)
{
    scratch *s = *state;
    const char *out = in_scratch(s, "out"), *first = under(s, out, "00000.png");
    assert_int_equal(mkdir(out, 0777), 0);
    pid_t child = start_ranks(
        s, "2", (const char *const[]){"sample", MODEL, "-n", "200000", "--steps", "3", "-q", "-o", out, NULL});
    wait_for_lines(first, 1); /* of a PNG's signature */
    kill(child, SIGINT);
    assert_true(finish_program(s, child) != 0);
    assert_string_equal(s->err, "halftone: interrupted: not all of 200000 images were written\n");
    DIR *d = opendir(out);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        assert_true(e->d_name[0] != '.' || !e->d_name[1] || !strcmp(e->d_name, ".."));
    closedir(d);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_scratch, close_scratch)
    const struct CMUnitTest tests[] = {
        TEST(pictures_have_the_same_bytes_with_any_number_of_processes),
        TEST(a_folder_has_the_same_files_with_any_number_of_processes),
        TEST(more_processes_than_images_are_well),
        TEST(metrics_are_the_same_with_any_number_of_processes),
        TEST(bad_pictures_are_told_of_as_by_one_process),
        TEST(a_sweep_has_the_same_rows_with_any_number_of_processes),
        TEST(a_sweep_whose_rank_was_killed_goes_on_with_another_number),
        TEST(a_cell_that_cannot_be_is_told_of_by_whatever_rank_has_it),
        TEST(an_error_on_one_rank_ends_all_with_its_line),
        TEST(an_error_of_all_ranks_is_one_line),
        TEST(processes_of_another_launcher_refuse),
        TEST(an_interrupt_is_one_line_and_leaves_whole_files),
    };
    return cmocka_run_group_tests(tests, allow_mpirun, NULL);
}
