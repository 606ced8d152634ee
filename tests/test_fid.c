/* test_fid.c - halftone fid: its results on small sets, and a clear outcome for every odd input. */
#include "tests/program.h"

#include <jansson.h>
#include <math.h>

#include "tests/pictures.h"

#define MODEL      "tests/goldens/pipeline/ddpm"
#define STATISTICS "models/cifar10/cifar10-train-resnet18_w24.npz"

enum { SET = 24, SIDE = 32 };

static void assert_contains(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("no \"%s\" in <%.2000s>", words, text);
}

/* A folder of n pictures of drawn pixels, 000.png on. */
static const char *make_set(scratch *s, const char *name, unsigned seed, int n, int side)
{
    const char *path = in_scratch(s, name);
    char file[PATH_MAX];
    assert_int_equal(mkdir(path, 0777), 0);
    for (int i = 0; i < n; i++) {
        assert_true(snprintf(file, sizeof file, "%s/%03d.png", path, i) < PATH_MAX);
        assert_int_equal(write_drawn(file, seed + (unsigned)i, side, side, 3), 0);
    }
    return path;
}

static const char *in_set(scratch *s, const char *set, const char *file)
{
    char name[PATH_MAX];
    const char *slash = strrchr(set, '/');
    snprintf(name, sizeof name, "%s/%s", slash + 1, file);
    return in_scratch(s, name);
}

static json_t *parse_output(const scratch *s)
{
    json_error_t error;
    json_t *object = json_loads(s->out, 0, &error);
    if (!object)
        fail_msg("not JSON: %s: <%.500s>", error.text, s->out);
    return object;
}

static double metric(const json_t *result, const char *name)
{
    const json_t *value = json_object_get(json_object_get(result, "metrics"), name);
    if (!json_is_real(value))
        fail_msg("%s is no number", name);
    return json_real_value(value);
}

static int64_t count_of(const json_t *result, size_t which)
{
    return json_integer_value(json_array_get(json_object_get(result, "n"), which));
}

/* ---- results ---- */

static void a_set_is_no_distance_from_itself(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE);
    assert_worked(s, run(s, "fid", a, a, "--metrics", "fid,kid,is,pr,psnr,ssim,distance", "--json", "-q"));
    json_t *o = parse_output(s), *m = json_object_get(o, "metrics");
    assert_string_equal(json_string_value(json_object_get(o, "features")), "resnet18_w24");
    assert_true(count_of(o, 0) == SET && count_of(o, 1) == SET);
    assert_true(fabs(metric(o, "fd")) < 1e-6);
    assert_true(json_is_false(json_object_get(json_object_get(o, "settings"), "skip-bad")));
    assert_null(json_object_get(m, "fid")); /* another network's distance is not called so */
    assert_true(metric(o, "kid") <= 0 && metric(o, "kid_std") >= 0);
    assert_true(metric(o, "is") >= 1 && metric(o, "is_std") >= 0);
    assert_true(metric(o, "precision") == 1 && metric(o, "recall") == 1 && metric(o, "coverage") == 1);
    assert_true(metric(o, "density") >= 1);
    assert_true(json_is_null(json_object_get(m, "psnr")));
    assert_true(fabs(metric(o, "ssim") - 1) < 1e-12 && metric(o, "distance") == 0);
    json_decref(o);
}

/* The network of models/emoji is that of pictures of its size, and of the models that have it beside them. */
static void emoji_have_a_network_of_their_own(void **state)
{
    scratch *s = *state;
    static const char statistics[] = "models/emoji/emoji-train-resnet18_w24_emoji.npz";
    const char *a = make_set(s, "a", 1, SET, 64), *dit = "models/emoji-dit";
    const char *const pairs[][2] = {{a, a}, {statistics, statistics}, {dit, dit}};
    for (int i = 0; i < 3; i++) {
        assert_worked(s, run(s, "fid", pairs[i][0], pairs[i][1], "--class", "1,27,42", "-n", "3", "--steps", "1",
                             "--json", "-q"));
        json_t *o = parse_output(s), *features = json_object_get(o, "features");
        if (i != 1) /* no network reads two files of statistics */
            assert_string_equal(json_string_value(features), "resnet18_w24_emoji");
        assert_true(fabs(metric(o, "fd")) < 1e-6);
        json_decref(o);
    }
    assert_worked(s, run(s, "fid", a, statistics, "-q"));
    assert_contains(s->out, "FD (resnet18_w24_emoji)");
    assert_null(strstr(s->out, "FID"));
    assert_worked(s, run(s, "fid", a, statistics, "-q", "--features", "resnet18_w24_emoji"));
    assert_refused(s, run(s, "fid", a, statistics, "-q", "--features", "resnet18_w24"), 1);
}

static void several_sets_make_a_table(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE), *b = make_set(s, "b", 100, SET, SIDE);
    assert_worked(s, run(s, "fid", a, b, a, "--json", "-q"));
    json_t *o = parse_output(s), *results = json_object_get(o, "results");
    assert_int_equal(json_array_size(results), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(results, 1), "a")), b);
    assert_true(metric(json_array_get(results, 0), "fd") < 1e-6 && metric(json_array_get(results, 1), "fd") > 1e-3);
    json_decref(o);
    assert_worked(s, run(s, "fid", a, b, a, "-q"));
    assert_contains(s->out, "FD (resnet18_w24)");
    assert_contains(s->out, b);
}

static double distance_of(scratch *s, const char *a, const char *b, const char *threads)
{
    assert_worked(s, run(s, "fid", a, b, "--json", "-q", "--threads", threads));
    json_t *o = parse_output(s);
    double d = metric(o, "fd");
    json_decref(o);
    return d;
}

static void a_zip_is_its_folder_with_any_threads(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE), *zip = in_scratch(s, "a.zip");
    char name[32];
    for (int i = 0; i < SET; i++) {
        snprintf(name, sizeof name, "%05d/img%03d.png", i / 10, i);
        add_drawn_to_zip(zip, name, 1 + (unsigned)i, SIDE, in_scratch(s, "one.png"));
    }
    double want = distance_of(s, a, STATISTICS, "1");
    assert_true(distance_of(s, zip, STATISTICS, "1") == want);
    assert_true(distance_of(s, zip, STATISTICS, "3") == want);
    assert_true(distance_of(s, a, STATISTICS, "2") == want);
}

static void saved_statistics_stand_for_the_set(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE), *b = make_set(s, "b", 100, SET, SIDE);
    assert_worked(s, run(s, "fid", a, b, "--json", "-q"));
    json_t *o = parse_output(s);
    double want = metric(o, "fd");
    json_decref(o);
    assert_false(exists(in_scratch(s, "a.resnet18_w24.npz"))); /* not unless asked */
    assert_worked(s, run(s, "fid", a, b, "--save-stats", "-q"));
    const char *kept_a = in_scratch(s, "a.resnet18_w24.npz"), *kept_b = in_scratch(s, "b.resnet18_w24.npz");
    assert_worked(s, run(s, "fid", kept_a, kept_b, "--json", "-q")); /* no network, no pictures */
    o = parse_output(s);
    assert_true(fabs(metric(o, "fd") - want) <= 1e-8 * want);
    assert_true(count_of(o, 0) == SET && count_of(o, 1) == SET);
    json_decref(o);
}

static void a_model_is_the_folder_of_its_images(void **state)
{
    scratch *s = *state;
    const char *drawn = in_scratch(s, "drawn/"), *b = make_set(s, "b", 100, SET, SIDE);
    assert_worked(s, run(s, "sample", MODEL, "-n", "37", "--steps", "3", "--seed", "4", "-q", "-o", drawn));
    assert_worked(s, run(s, "fid", drawn, MODEL, b, "-n", "37", "--steps", "3", "--seed", "4", "--features",
                         "resnet18_w24", "--resize", "bilinear", "--metrics", "fid,kid,pr", "--json", "-q"));
    json_t *o = parse_output(s), *results = json_object_get(o, "results");
    json_t *folder = json_array_get(results, 0), *model = json_array_get(results, 1);
    assert_int_equal(count_of(model, 0), 37);
    assert_true(json_equal(json_object_get(folder, "metrics"), json_object_get(model, "metrics")));
    json_decref(o);
    assert_worked(
        s, run(s, "fid", drawn, MODEL, "-n", "37", "--steps", "3", "--seed", "4", "--metrics", "psnr", "--json", "-q"));
    o = parse_output(s);
    assert_true(json_is_null(json_object_get(json_object_get(o, "metrics"), "psnr"))); /* pair by pair the same */
    json_decref(o);
}

#define PROMPTED "tests/goldens/pipeline/sd1"
#define CLASSES  "tests/goldens/pipeline/dit"

/* Image i is drawn from prompt i % 2 and its own noise; the second prompt has two rows of tokens. */
static void a_model_of_prompts_takes_them_in_turn(void **state)
{
    scratch *s = *state;
    char words[1024] = "", text[1200], first[12], picture[32];
    const char *list = in_scratch(s, "list.txt");
    for (int i = 0; i < 90; i++)
        strcat(words, "a cat ");
    const char *const prompts[] = {"a dog", words};
    FILE *f = fopen(list, "w");
    assert_non_null(f);
    snprintf(text, sizeof text, "%s\n%s\n", prompts[0], prompts[1]);
    assert_true(fputs(text, f) >= 0 && !fclose(f));
    assert_int_equal(mkdir(in_scratch(s, "drawn"), 0777), 0);
    for (int i = 0; i < 5; i++) {
        snprintf(first, sizeof first, "%d", i);
        snprintf(picture, sizeof picture, "drawn/%d.png", i);
        assert_worked(s, run(s, "sample", PROMPTED, "-p", prompts[i % 2], "-n", "1", "--first", first, "--steps", "2",
                             "--guidance", "3", "--negative", "fog", "-q", "-o", in_scratch(s, picture)));
    }
    assert_worked(s, run(s, "fid", in_scratch(s, "drawn"), PROMPTED, "-n", "5", "--steps", "2", "--guidance", "3",
                         "--negative", "fog", "--prompts", list, "--metrics", "psnr,ssim", "--json", "-q"));
    json_t *o = parse_output(s);
    assert_true(json_is_null(json_object_get(json_object_get(o, "metrics"), "psnr"))); /* pair by pair the same */
    assert_int_equal(count_of(o, 1), 5);
    json_decref(o);
}

static void a_model_of_latents_and_classes_is_the_folder_of_its_images(void **state)
{
    scratch *s = *state;
    const char *drawn = in_scratch(s, "drawn/");
    assert_worked(s, run(s, "sample", CLASSES, "-n", "3", "--steps", "2", "--class", "1,2", "-q", "-o", drawn));
    assert_worked(s, run(s, "fid", drawn, CLASSES, "-n", "3", "--steps", "2", "--class", "1,2", "--metrics", "psnr",
                         "--json", "-q"));
    json_t *o = parse_output(s);
    assert_true(json_is_null(json_object_get(json_object_get(o, "metrics"), "psnr")));
    json_decref(o);
}

static void models_and_prompts_must_go_together(void **state)
{
    scratch *s = *state;
    const char *list = in_scratch(s, "list.txt");
    assert_refused(s, run(s, "fid", PROMPTED, PROMPTED, "--metrics", "psnr"), 1);
    assert_contains(s->err, "sd1: needs prompts; see --prompts");
    FILE *f = fopen(list, "w");
    assert_non_null(f);
    assert_true(fputs("a dog\n\n(a cat:1.2.3)\n", f) >= 0 && !fclose(f));
    assert_refused(s, run(s, "fid", PROMPTED, PROMPTED, "--metrics", "psnr", "--prompts", list), 1);
    assert_contains(s->err, "list.txt:3: ");
    assert_refused(s, run(s, "fid", MODEL, MODEL, "--metrics", "psnr", "--prompts", list), 1);
    assert_contains(s->err, "ddpm: takes no prompt; leave --prompts out");
    assert_refused(s, run(s, "fid", MODEL, MODEL, "--metrics", "psnr", "--prompts", in_scratch(s, "none")), 1);
    assert_contains(s->err, "none: No such file");
    assert_refused(s, run(s, "fid", "tests/goldens/pipeline/sd1-inpaint", MODEL, "--metrics", "psnr"), 1);
    assert_contains(s->err, "sd1-inpaint: an inpainting model needs a picture and a mask");
}

/* A model in the scratch folder, so that statistics are kept there: a link. */
static const char *linked_model(scratch *s, const char *model)
{
    const char *link = in_scratch(s, "m");
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", s->root, model);
    assert_int_equal(symlink(path, link), 0);
    return link;
}

/* What changes no image changes no name. */
static void statistics_of_a_model_are_kept_for_each_of_its_settings(void **state)
{
    scratch *s = *state;
    const char *m = linked_model(s, "tests/goldens/pipeline/sd1"), *list = in_scratch(s, "list.txt");
    static const struct {
        const char *prompts, *option, *value;
        bool same;
    } rows[] = {
        {"a cat\n", "--eta", "0", false},         {"a dog\n", "--eta", "0", false},
        {"a cat\na dog\n", "--eta", "0", false},  {"# cats\na cat\n", "--eta", "0", true},
        {"a cat\n", "--eta", "0.5", false},       {"a cat\n", "--guidance", "3", false},
        {"a cat\n", "--guidance", "1", false},    {"a cat\n", "--negative", "two dogs", false},
        {"a cat\n", "--sampler", "euler", false}, {"a cat\n", "--spacing", "trailing", false},
        {"a cat\n", "--seed", "1", false},        {"a cat\n", "--batch", "1", true},
        {"a cat\n", "--threads", "2", true},      {"a cat\n", "--metrics", "psnr", true},
    };
    int files = count_files(s->folder) + 1; /* the list */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_bytes(list, rows[i].prompts, strlen(rows[i].prompts));
        assert_worked(s, run(s, "fid", m, m, "--prompts", list, rows[i].option, rows[i].value, "-n", "2", "--steps",
                             "2", "--save-stats", "--features", "resnet18_w24", "--resize", "bilinear", "-q"));
        files += !rows[i].same;
        if (count_files(s->folder) != files)
            fail_msg("%s %s: %d files, want %d", rows[i].option, rows[i].value, count_files(s->folder), files);
    }
}

/* ---- odd inputs ---- */

static void one_image_has_no_covariance(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, 1, SIDE);
    assert_refused(s, run(s, "fid", a, STATISTICS), 1);
    assert_contains(s->err, "/a: the covariance of 1 feature vector is not defined; it takes two or more");
}

static void few_images_are_warned_of(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE);
    assert_int_equal(run(s, "fid", a, STATISTICS), 0);
    assert_contains(s->err, "halftone: warning: ");
    assert_contains(s->err, "24 images for 192 features: the covariance is singular");
    assert_contains(s->out, "FD (resnet18_w24)");
}

static void an_empty_folder_is_refused(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, 0, SIDE);
    assert_refused(s, run(s, "fid", a, STATISTICS), 1);
    assert_contains(s->err, "/a: has no pictures");
    assert_refused(s, run(s, "fid", in_scratch(s, "missing"), STATISTICS), 1);
    assert_contains(s->err, "/missing: No such file");
}

static void a_corrupt_image_is_named_and_counted(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE);
    write_bytes(in_set(s, a, "007.png"), "\x89PNG\r\n\x1a\n and nothing more", 25);
    write_bytes(in_set(s, a, "019.png"), "text", 4);
    assert_refused(s, run(s, "fid", a, STATISTICS), 1);
    assert_contains(s->err, "2 of 24 pictures cannot be read; the first: ");
    assert_contains(s->err, "007.png: damaged picture");
    assert_int_equal(run(s, "fid", a, STATISTICS, "--skip-bad", "--json"), 0);
    assert_contains(s->err, "007.png: damaged picture");
    assert_contains(s->err, "019.png: not a PNG, JPEG or BMP file");
    assert_contains(s->err, "2 of 24 pictures cannot be read and are left out");
    json_t *o = parse_output(s);
    assert_int_equal(count_of(o, 0), SET - 2);
    assert_int_equal(json_integer_value(json_object_get(o, "skipped")), 2);
    assert_true(json_is_true(json_object_get(json_object_get(o, "settings"), "skip-bad")));
    double skipped = metric(o, "fd");
    json_decref(o);
    unlink(in_set(s, a, "007.png"));
    unlink(in_set(s, a, "019.png"));
    assert_true(distance_of(s, a, STATISTICS, "1") == skipped);
    write_bytes(in_scratch(s, "only.png"), "x", 1);
    const char *b = make_set(s, "b", 1, 0, SIDE);
    write_bytes(in_set(s, b, "x.png"), "x", 1);
    assert_refused(s, run(s, "fid", b, STATISTICS, "--skip-bad", "-q", "--features", "resnet18_w24"), 1);
    assert_contains(s->err, "no picture can be read");
}

static void mixed_sizes_are_named_or_resized(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE);
    assert_int_equal(write_drawn(in_set(s, a, "020.png"), 5, 40, 20, 3), 0);
    assert_refused(s, run(s, "fid", a, STATISTICS), 1);
    assert_contains(s->err, "020.png: 40 x 20 pixels, wanted 32 x 32, or a way to resize");
    assert_refused(s, run(s, "fid", a, STATISTICS, "--skip-bad"), 1); /* it is not bad */
    static const char *const ways[] = {"bilinear", "tf1", "bicubic"};
    for (int i = 0; i < 3; i++) {
        assert_worked(s, run(s, "fid", a, STATISTICS, "-q", "--resize", ways[i]));
        assert_contains(s->out, ways[i]);
    }
    assert_refused(s, run(s, "fid", a, a, "--resize", "nearest"), 2);
}

static void gray_deep_and_transparent_images_are_taken(void **state)
{
    scratch *s = *state;
    static file_bytes f;
    static uint8_t rows[SIDE * (1 + SIDE * 2)];
    const char *a = make_set(s, "a", 1, SET, SIDE), *b = make_set(s, "b", 1, SET, SIDE);
    assert_int_equal(write_drawn(in_set(s, a, "000.png"), 5, SIDE, SIDE, 1), 0);
    assert_int_equal(write_drawn(in_set(s, a, "001.png"), 5, SIDE, SIDE, 4), 0);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            rows[y * (1 + SIDE * 2) + 1 + 2 * x] = (uint8_t)(x * y);
    make_png(&f, SIDE, SIDE, 16, 0, rows, sizeof rows);
    write_bytes(in_set(s, a, "002.png"), f.data, f.size);
    assert_worked(s, run(s, "fid", a, b, "-q", "--metrics", "fid,ssim"));
}

static void pairs_must_be_pairs(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE), *b = make_set(s, "b", 1, SET - 1, SIDE);
    assert_refused(s, run(s, "fid", a, b, "--metrics", "psnr"), 1);
    assert_contains(s->err, "has 24 images, ");
    assert_int_equal(write_drawn(in_set(s, b, "999.png"), 5, SIDE, SIDE + 1, 3), 0);
    assert_refused(s, run(s, "fid", a, b, "--metrics", "psnr"), 1);
    assert_contains(s->err, "32 x 32 and 32 x 33 pixels");
    assert_refused(s, run(s, "fid", a, STATISTICS, "--metrics", "kid"), 1);
    assert_contains(s->err, "has a mean and a covariance alone");
    assert_refused(s, run(s, "fid", a, b, "--metrics", "psnr", "--skip-bad"), 2);
}

/* ---- statistics that are odd ---- */

typedef struct array {
    const char *name, *shape;
    double values[16];
    size_t n;
} array;

static void put_array(const char *npz, const array *a)
{
    file_bytes f = {.size = 0};
    char header[128];
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(header + 10, 118, "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }", a->shape);
    header[10 + n] = ' ';
    header[127] = '\n';
    add_bytes(&f, header, sizeof header);
    add_bytes(&f, a->values, a->n * sizeof *a->values);
    uint8_t *kept = malloc(f.size); /* libzip reads it when it closes */
    assert_non_null(kept);
    memcpy(kept, f.data, f.size);
    add_to_zip(npz, a->name, kept, f.size);
    free(kept);
}

static void odd_statistics_are_refused(void **state)
{
    static const struct {
        array arrays[2];
        const char *words;
    } cases[] = {
        {{{"sigma.npy", "(1, 1)", {1}, 1}}, "has no array mu"},
        {{{"mu.npy", "(1,)", {1}, 1}}, "has no array sigma"},
        {{{"mu.npy", "(1, 1)", {1}, 1}, {"sigma.npy", "(1, 1)", {1}, 1}}, "mu has 2 dimensions"},
        {{{"mu.npy", "(2,)", {1, 2}, 2}, {"sigma.npy", "(1, 1)", {1}, 1}}, "sigma must be [2,2]"},
        {{{"mu.npy", "(2,)", {1, 2}, 2}, {"sigma.npy", "(2, 2)", {1, 0, NAN, 1}, 4}}, "sigma[2] (of 4) is not finite"},
        {{{"mu.npy", "(2,)", {INFINITY, 2}, 2}, {"sigma.npy", "(2, 2)", {1, 0, 0, 1}, 4}},
         "mu[0] (of 2) is not finite"},
        {{{"mu.npy", "(2,)", {1, 2}, 2}, {"sigma.npy", "(2, 2)", {1, 0, 1, 1}, 4}}, "sigma is no covariance"},
        {{{"mu.npy", "(2,)", {1, 2}, 3}, {"sigma.npy", "(2, 2)", {1, 0, 0, 1}, 4}}, "the shape wants 16"},
    };
    scratch *s = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        snprintf(name, sizeof name, "odd%zu.npz", i);
        const char *npz = in_scratch(s, name);
        for (int k = 0; k < 2 && cases[i].arrays[k].name; k++)
            put_array(npz, &cases[i].arrays[k]);
        assert_refused(s, run(s, "fid", npz, STATISTICS), 1);
        assert_contains(s->err, cases[i].words);
        assert_contains(s->err, name);
    }
    write_bytes(in_scratch(s, "text.npz"), "text", 4);
    assert_refused(s, run(s, "fid", in_scratch(s, "text.npz"), STATISTICS), 1);
    assert_contains(s->err, "not a zip");
}

static void statistics_of_another_network_are_refused(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, SET, SIDE), *npz = in_scratch(s, "two.npz");
    put_array(npz, &(array){"mu.npy", "(2,)", {1, 2}, 2});
    put_array(npz, &(array){"sigma.npy", "(2, 2)", {1, 0, 0, 1}, 4});
    assert_refused(s, run(s, "fid", a, npz), 1);
    assert_contains(s->err, "two.npz: is of 2 numbers an image, resnet18_w24 gives 192");
    assert_refused(s, run(s, "fid", npz, STATISTICS), 1);
    assert_contains(s->err, "features of 2 and of 192 numbers have no distance");
}

static void damaged_zips_are_refused(void **state)
{
    static uint8_t bytes[1 << 16];
    scratch *s = *state;
    const char *zip = in_scratch(s, "a.zip");
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.png", i);
        add_drawn_to_zip(zip, name, 1 + (unsigned)i, SIDE, in_scratch(s, "one.png"));
    }
    size_t n = read_bytes(zip, bytes, sizeof bytes);
    bytes[find_bytes(bytes, n, "IDAT", 4) + 9] ^= 1;
    write_bytes(zip, bytes, n);
    assert_refused(s, run(s, "fid", zip, STATISTICS), 1);
    assert_contains(s->err, "1 of 3 pictures cannot be read; the first: ");
    assert_contains(s->err, "a.zip: 2.png is damaged: CRC error");
    assert_int_equal(run(s, "fid", zip, STATISTICS, "--skip-bad"), 0);
    write_bytes(zip, bytes, n / 2);
    assert_refused(s, run(s, "fid", zip, STATISTICS), 1);
    assert_contains(s->err, "a.zip: not a zip");
}

/* ---- the command line ---- */

static void networks_that_are_missing_say_where_they_are_from(void **state)
{
    scratch *s = *state;
    const char *a = make_set(s, "a", 1, 2, 48);
    if (exists("models/inception"))
        return;
    assert_refused(s, run(s, "fid", a, a), 1);
    assert_contains(s->err, "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/");
    assert_contains(s->err, "tools/inception_weights.py");
    assert_refused(s, run(s, "fid", a, a, "--features", in_scratch(s, "none")), 1);
    assert_contains(s->err, "/none: ");
    write_bytes(in_scratch(s, "w.safetensors"), "\x02\0\0\0\0\0\0\0{}", 10);
    assert_refused(s, run(s, "fid", a, a, "--features", in_scratch(s, "w.safetensors")), 1);
    assert_contains(s->err, "w.safetensors: no feature network that this version knows");
}

static void wrong_command_lines_are_refused(void **state)
{
    scratch *s = *state;
    assert_refused(s, run(s, "fid"), 2);
    assert_refused(s, run(s, "fid", "a"), 2);
    assert_contains(s->err, "too few of A... B; wanted 2 at least");
    assert_refused(s, run(s, "fid", STATISTICS, STATISTICS, "--metrics", "fid,fud"), 2);
    assert_contains(s->err, "'fud' is none of fid, sfid");
    assert_refused(s, run(s, "fid", STATISTICS, STATISTICS, "--metrics", ""), 2);
    const char *a = make_set(s, "a", 1, 2, SIDE);
    assert_refused(s, run(s, "fid", a, a, "--metrics", "sfid"), 1);
    assert_contains(s->err, "resnet18_w24 gives no spatial features for sFID");
    assert_refused(s, run(s, "fid", a, a, "--output", "64"), 1);
    assert_contains(s->err, "resnet18_w24 has no output \"64\"; it has 192, logits");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_scratch, close_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_set_is_no_distance_from_itself),
        CASE(several_sets_make_a_table),
        CASE(emoji_have_a_network_of_their_own),
        CASE(a_zip_is_its_folder_with_any_threads),
        CASE(saved_statistics_stand_for_the_set),
        CASE(a_model_is_the_folder_of_its_images),
        CASE(a_model_of_prompts_takes_them_in_turn),
        CASE(a_model_of_latents_and_classes_is_the_folder_of_its_images),
        CASE(statistics_of_a_model_are_kept_for_each_of_its_settings),
        CASE(models_and_prompts_must_go_together),
        CASE(one_image_has_no_covariance),
        CASE(few_images_are_warned_of),
        CASE(an_empty_folder_is_refused),
        CASE(a_corrupt_image_is_named_and_counted),
        CASE(mixed_sizes_are_named_or_resized),
        CASE(gray_deep_and_transparent_images_are_taken),
        CASE(pairs_must_be_pairs),
        CASE(odd_statistics_are_refused),
        CASE(statistics_of_another_network_are_refused),
        CASE(damaged_zips_are_refused),
        CASE(networks_that_are_missing_say_where_they_are_from),
        CASE(wrong_command_lines_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
