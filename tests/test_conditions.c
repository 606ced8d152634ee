/* test_conditions.c - calibration and quantization of models that take conditions: prompts through a pipeline's text
 * encoders, files of conditions, guidance in both branches, and what a calibration file keeps of them. */
#include <math.h>

#include "calib/moments.h"
#include "calib/output_moments.h"
#include "calib/products.h"
#include "graph/reverse.h"
#include "sampler/guide.h"
#include "tests/calibrated.h"

#define UNETS GOLDENS "/unet/"

static const ht_calibrate_options few = {.steps = 4, .timesteps = 2, .per_step = 4, .threads = 1};

/* A file of conditions made of a golden case's: encoder_hidden_states.0 becomes encoder_hidden_states, the first row
 * of .1 the one of no prompt. */
static const char *write_conditions(const char *name, bool negative)
{
    static const char *const arguments[] = {"encoder_hidden_states", "text_embeds", "time_ids", "timestep_cond"};
    ht_safetensors *golden = golden_open(name, "golden.safetensors");
    ht_tensor tensors[8];
    size_t n = 0;
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        const ht_tensor *t = ht_safetensors_find(golden, ht_sprintf(arena, "%s.0", arguments[i])),
                        *other = ht_safetensors_find(golden, ht_sprintf(arena, "%s.1", arguments[i]));
        if (!t)
            continue;
        tensors[n] = *t;
        tensors[n++].name = arguments[i];
        if (!negative)
            continue;
        tensors[n] = *other;
        tensors[n].name = ht_sprintf(arena, "negative_%s", arguments[i]);
        tensors[n].shape[0] = 1;
        tensors[n].count /= (size_t)other->shape[0];
        tensors[n++].bytes /= (size_t)other->shape[0];
    }
    const char *path = ht_strdup(arena, in_root("conditions"));
    assert_ok(ht_safetensors_write(path, tensors, n, NULL, 0));
    ht_safetensors_close(golden);
    return path;
}

static ht_model *open_unet(const char *name)
{
    ht_model *m;
    assert_ok(ht_model_open(ht_sprintf(arena, UNETS "%s", name), NULL, &m));
    m->schedule.num_train_timesteps = 100; /* each is one more evaluation of what depends on time alone */
    return m;
}

static const char *const unets[] = {"sd1", "sd2", "sdxl", "ldm-cin", "lcm"};
enum { UNETS_N = sizeof unets / sizeof *unets };

/* ---- calibration ---- */

static void samples_are_of_both_branches_and_go_round_the_prompts(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_unet("sd1");
    ht_calibrate_options o = few;
    o.conditions = write_conditions("unet/sd1", true);
    o.per_step = 5;
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    assert_int_equal(c.contexts.n, 3); /* two prompts, and none */
    assert_int_equal(c.contexts.negative, 2);
    assert_int_equal(c.samples, 10);
    static const int32_t want[] = {0, 2, 1, 2, 0};
    size_t size = (size_t)c.height * (size_t)c.width * (size_t)c.channels;
    for (int64_t i = 0; i < c.samples; i++)
        assert_int_equal(c.context[i], want[i % 5]);
    assert_memory_equal(c.sample, c.sample + size, size * sizeof(float)); /* the two branches of an image */
    assert_false(!memcmp(c.sample, c.sample + 2 * size, size * sizeof(float)));
    o.guidance = 1;
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    for (int64_t i = 0; i < c.samples; i++)
        assert_int_equal(c.context[i], i % 5 % 2); /* no branch but the prompts' */
    ht_model_close(m);
}

/* x after one step of DDIM from the same noise, with eps = none + 3 (prompt - none). */
static void trajectories_are_guided(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_unet("sd1");
    ht_session *s;
    ht_calibrate_options o = few;
    o.conditions = write_conditions("unet/sd1", true);
    o.distribution = "all";
    o.guidance = 3;
    o.per_step = 2;
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    size_t size = (size_t)c.height * (size_t)c.width * (size_t)c.channels;
    float *room = ht_alloc_array(arena, ht_contexts_room(&c.contexts, 2), sizeof *room),
          *out = ht_alloc_array(arena, 2 * size, sizeof *out);
    assert_ok(ht_session_open(m, &(ht_session_options){.batch = 2, .tokens = c.contexts.tokens, .threads = 1}, &s));
    float t[] = {c.timesteps[0], c.timesteps[0]};
    ht_cond cond = ht_calibration_cond(&c, 0, 2, room);
    assert_ok(ht_predict(s, 2, c.sample, t, &cond, out));
    float *alphas;
    assert_ok(ht_schedule_alphas(arena, &m->schedule, &alphas));
    double a = (double)alphas[(int)c.timesteps[0]], b = (double)alphas[(int)c.timesteps[1]], worst = 0;
    for (size_t i = 0; i < size; i++) {
        double eps = (double)out[size + i] + 3 * ((double)out[i] - (double)out[size + i]);
        double x0 = ((double)c.sample[i] - sqrt(1 - a) * eps) / sqrt(a);
        x0 = m->schedule.clip_sample ? fmax(-1, fmin(1, x0)) : x0;
        double want = sqrt(b) * x0 + sqrt(1 - b) * eps, error = fabs((double)c.sample[2 * size + i] - want);
        worst = error > worst ? error : worst;
    }
    assert_true(worst < 1e-4);
    ht_session_close(s);
    ht_model_close(m);
}

static void the_same_settings_give_the_same_bytes_at_any_batch(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i += 2) { /* sd1, sdxl */
        ht_model *m = open_unet(unets[i]);
        ht_calibrate_options o = few;
        o.conditions = write_conditions(ht_sprintf(arena, "unet/%s", unets[i]), true);
        const char *first = calibrate(m, "a", o);
        for (o.batch = 1; o.batch <= 5; o.batch += 2) {
            o.threads = 1 + o.batch / 2;
            assert_true(same_file(first, calibrate(m, "b", o)));
        }
        o.guidance = 2;
        assert_false(same_file(first, calibrate(m, "b", o)));
        ht_model_close(m);
    }
}

static void assert_same_contexts(const ht_calibration *a, const ht_calibration *b)
{
    assert_int_equal(a->contexts.n, b->contexts.n);
    assert_int_equal(a->contexts.tokens, b->contexts.tokens);
    assert_memory_equal(a->context, b->context, (size_t)a->samples * sizeof *a->context);
    for (int i = 0; i < HT_CONDITIONS; i++) {
        assert_int_equal(!a->contexts.rows[i], !b->contexts.rows[i]);
        if (a->contexts.rows[i])
            assert_memory_equal(a->contexts.rows[i], b->contexts.rows[i],
                                (size_t)a->contexts.n * ht_context_numbers(&a->contexts, i) * sizeof(float));
    }
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    for (int i = 0; i < UNETS_N; i++) {
        ht_calibration made, read;
        ht_model *m = open_unet(unets[i]);
        ht_calibrate_options o = few;
        o.conditions = write_conditions(ht_sprintf(arena, "unet/%s", unets[i]), false);
        assert_ok(ht_calibration_make(arena, m, &o, &made));
        assert_ok(ht_calibration_write(&made, in_root("calib")));
        assert_ok(ht_calibration_read(arena, m, in_root("calib"), &read));
        assert_same_contexts(&made, &read);
        assert_ok(ht_calibration_read(arena, NULL, in_root("calib"), &read));
        assert_same_contexts(&made, &read);
        ht_model_close(m);
    }
}

/* The model's output on all samples of a calibration, [samples,h,w,c]. */
static const float *outputs_of(ht_model *m, const ht_calibration *c)
{
    ht_session *s;
    int n = (int)c->samples, at = 0;
    size_t size = (size_t)c->height * (size_t)c->width * (size_t)c->channels;
    float *room = ht_alloc_array(arena, ht_contexts_room(&c->contexts, n), sizeof *room),
          *out = ht_alloc_array(arena, (size_t)n * size, sizeof *out), *t = ht_alloc_array(arena, (size_t)n, sizeof *t);
    for (int g = 0; g < c->groups; g++)
        for (int k = 0; k < c->counts[g]; k++)
            t[at++] = c->timesteps[g];
    assert_ok(ht_session_open(m, &(ht_session_options){.batch = 3, .tokens = c->contexts.tokens, .threads = 1}, &s));
    ht_cond cond = ht_calibration_cond(c, 0, n, room);
    assert_ok(ht_predict(s, n, c->sample, t, &cond, out));
    ht_session_close(s);
    return out;
}

/* A calibration file is one that halftone predict reads: every sample with the conditions of its prompt. */
static void a_calibration_can_be_predicted(void **state)
{
    (void)state;
    for (int i = 0; i < UNETS_N; i++) {
        ht_calibration c;
        ht_safetensors *file;
        ht_model *m = open_unet(unets[i]);
        ht_calibrate_options o = few;
        o.conditions = write_conditions(ht_sprintf(arena, "unet/%s", unets[i]), true);
        assert_ok(ht_calibration_make(arena, m, &o, &c));
        assert_ok(ht_calibration_write(&c, in_root("calib")));
        assert_ok(ht_predict_file(m, &(ht_session_options){.threads = 1, .batch = 3}, in_root("calib"),
                                  in_root("predicted"), NULL, NULL));
        assert_ok(ht_safetensors_open(in_root("predicted"), &file));
        const float *found = ht_safetensors_find(file, "sample")->data, *wanted = outputs_of(m, &c);
        size_t channels = (size_t)c.channels, pixels = (size_t)c.height * (size_t)c.width, size = pixels * channels;
        for (size_t k = 0; k < (size_t)c.samples * size; k++)
            assert_true(found[k] == wanted[k / size * size + k % pixels * channels + k % size / pixels]);
        ht_safetensors_close(file);
        ht_model_close(m);
    }
}

/* ---- files that are not right ---- */

/* The calibration of sd1 with one tensor changed. */
static void write_changed(const char *from, const char *name, void (*change)(ht_tensor *t))
{
    ht_safetensors *file;
    ht_tensor tensors[1024];
    ht_metadata metadata[2];
    assert_ok(ht_safetensors_open(from, &file));
    size_t n = ht_safetensors_count(file), used = 0;
    assert_true(n < 1024);
    for (size_t i = 0; i < n; i++) {
        tensors[used] = *ht_safetensors_at(file, i);
        if (!strcmp(tensors[used].name, name)) {
            void *copy = ht_alloc(arena, tensors[used].bytes + 64);
            memcpy(copy, tensors[used].data, tensors[used].bytes);
            tensors[used].data = copy;
            change(&tensors[used]);
        }
        used += tensors[used].name != NULL;
    }
    metadata[0] = (ht_metadata){"halftone_calibration", ht_safetensors_metadata(file, "halftone_calibration")};
    metadata[1] = (ht_metadata){"model", ht_safetensors_metadata(file, "model")};
    assert_ok(ht_safetensors_write(in_root("changed"), tensors, used, metadata, 2));
    ht_safetensors_close(file);
}

static void leave_out(ht_tensor *t)
{
    t->name = NULL;
}

static void make_far(ht_tensor *t)
{
    *(int32_t *)(uintptr_t)t->data = 3;
}

static void make_nan(ht_tensor *t)
{
    *(float *)(uintptr_t)t->data = NAN;
}

static void make_narrow(ht_tensor *t)
{
    t->shape[2]--;
    t->count = (size_t)(t->shape[0] * t->shape[1] * t->shape[2]);
    t->bytes = t->count * 4;
}

static void make_few(ht_tensor *t)
{
    t->shape[0]--;
    t->count--;
    t->bytes -= 4;
}

static void damaged_contexts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *tensor, *words;
        void (*change)(ht_tensor *t);
    } cases[] = {
        {"context", "context is missing", leave_out},
        {"context", "not one number for each sample", make_few},
        {"context", "a number that is no context's", make_far},
        {"contexts.encoder_hidden_states", "contexts.encoder_hidden_states is missing", leave_out},
        {"contexts.encoder_hidden_states", "not finite", make_nan},
        {"contexts.encoder_hidden_states", "has not the shape", make_narrow},
    };
    ht_calibration c;
    ht_model *m = open_unet("sd1");
    ht_calibrate_options o = few;
    o.conditions = write_conditions("unet/sd1", true);
    const char *path = calibrate(m, "calib", o);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_changed(path, cases[i].tensor, cases[i].change);
        assert_refused(ht_calibration_read(arena, m, in_root("changed"), &c), HT_ERR_FORMAT, cases[i].words);
        assert_true(ht_predict_file(m, NULL, in_root("changed"), in_root("predicted"), NULL, NULL) != HT_OK);
    }
    ht_model_close(m);
}

static void what_a_model_lacks_is_said(void **state)
{
    (void)state;
    ht_calibration c;
    ht_calibrate_options o = few;
    ht_model *m = open_unet("sd1");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "the folder of the whole pipeline");
    o.prompts = in_root("prompts");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "encoder_hidden_states");
    o.conditions = GOLDENS "/unet/sd1/golden.safetensors";
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "give one of them");
    o.prompts = NULL;
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "no tensor called encoder_hidden_states");
    o.conditions = write_conditions("unet/sd2", false);
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_SHAPE, "must be [n,tokens,16]");
    ht_model_close(m);
    assert_refused(ht_quantize_check(&(ht_quantize_options){.calibration = "calib", .prompts = "prompts"}),
                   HT_ERR_ARGUMENT, "calib has its own");
    m = open_small("plain", &plain);
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "takes no conditions");
    o = few;
    o.prompts = in_root("prompts");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "takes no prompts");
    ht_model_close(m);
    m = open_unet("scale-shift-class-timestep");
    assert_refused(ht_calibration_make(arena, m, &few, &c), HT_ERR_ARGUMENT, "takes class_labels");
    ht_model_close(m);
}

/* ---- prompts ---- */

static ht_model *open_pipeline(const char *name)
{
    ht_model *m;
    assert_ok(ht_model_open(ht_sprintf(arena, GOLDENS "/pipeline/%s", name), NULL, &m));
    m->schedule.num_train_timesteps = 100;
    return m;
}

static const char *write_prompts(const char *text)
{
    const char *path = ht_strdup(arena, in_root("prompts.txt"));
    put_bytes(path, text, strlen(text));
    return path;
}

static const float *row_of(const ht_calibration *c, const char *condition, int context)
{
    for (int i = 0; i < HT_CONDITIONS; i++)
        if (!strcmp(ht_conditions[i].name, condition) && c->contexts.rows[i])
            return c->contexts.rows[i] + (size_t)context * ht_context_numbers(&c->contexts, i);
    fail_msg("there are no %s", condition);
    return NULL;
}

static size_t hidden_size(const ht_calibration *c, const ht_model *m)
{
    return (size_t)c->contexts.tokens * (size_t)m->info.cross_attention_dim;
}

/* Blank lines, spaces at the end and both ends of lines do not matter. */
static void lines_of_a_file_are_prompts(void **state)
{
    (void)state;
    ht_calibration a, b;
    ht_model *m = open_pipeline("sd1");
    ht_calibrate_options o = few;
    o.prompts = write_prompts("a cat\n\n  \na dog  \r\na cat");
    assert_ok(ht_calibration_make(arena, m, &o, &a));
    assert_int_equal(a.contexts.n, 4);
    assert_int_equal(a.contexts.negative, 3);
    size_t size = hidden_size(&a, m) * sizeof(float);
    const char *name = "encoder_hidden_states";
    assert_memory_equal(row_of(&a, name, 0), row_of(&a, name, 2), size);
    assert_false(!memcmp(row_of(&a, name, 0), row_of(&a, name, 1), size));
    assert_false(!memcmp(row_of(&a, name, 0), row_of(&a, name, 3), size));
    assert_non_null(strstr(a.settings, "[\"a cat\",\"a dog\",\"a cat\"]"));
    o.prompts = NULL; /* its own */
    assert_ok(ht_calibration_make(arena, m, &o, &b));
    assert_true(b.contexts.n > 8);
    assert_memory_equal(row_of(&a, name, 3), row_of(&b, name, b.contexts.negative), size);
    ht_model_close(m);
}

/* Two encoders beside one another, the pooled prompt, sizes; no prompt is zeros if the pipeline says so. */
static void sdxl_has_what_its_denoiser_takes(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_pipeline("sdxl");
    ht_calibrate_options o = few;
    o.prompts = write_prompts("a cat\na dog\n");
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    const float *none = row_of(&c, "encoder_hidden_states", 2), *pooled = row_of(&c, "text_embeds", 2);
    double some = 0;
    for (size_t i = 0; i < hidden_size(&c, m); i++) {
        assert_true(none[i] == 0);
        some += fabs((double)row_of(&c, "encoder_hidden_states", 0)[i]);
    }
    for (int i = 0; i < m->info.text_embed_dim; i++) {
        assert_true(pooled[i] == 0);
        some += fabs((double)row_of(&c, "text_embeds", 1)[i]);
    }
    assert_true(some > 1);
    static const float sizes[] = {32, 32, 0, 0, 32, 32}; /* 16 x 16, of which the decoder makes twice as much */
    for (int k = 0; k < 3; k++)
        assert_memory_equal(row_of(&c, "time_ids", k), sizes, sizeof sizes);
    ht_model_close(m);
}

/* LCM is told of the guidance and has no branch without a prompt. */
static void a_distilled_model_is_told_of_the_guidance(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_pipeline("lcm");
    ht_calibrate_options o = few;
    float *want = ht_alloc_array(arena, (size_t)m->info.timestep_cond_dim, sizeof *want);
    o.prompts = write_prompts("a cat\na dog\n");
    o.guidance = 3;
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    assert_int_equal(c.contexts.n, 2);
    assert_int_equal(c.contexts.negative, -1);
    ht_guidance_embedding(3, m->info.timestep_cond_dim, want);
    for (int k = 0; k < 2; k++)
        assert_memory_equal(row_of(&c, "timestep_cond", k), want, (size_t)m->info.timestep_cond_dim * sizeof *want);
    for (int64_t i = 0; i < c.samples; i++)
        assert_in_range(c.context[i], 0, 1);
    ht_model_close(m);
}

/* T5's hidden states with their mask, and PixArt-alpha's sizes. */
static void pixart_has_what_its_denoiser_takes(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_pipeline("pixart-alpha");
    ht_calibrate_options o = few;
    o.prompts = write_prompts("a cat\na dog on a red chair\n");
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    assert_int_equal(c.contexts.n, 3);
    assert_int_equal(c.contexts.tokens, 120);
    float read[3] = {0};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < c.contexts.tokens; i++)
            read[k] += row_of(&c, "encoder_attention_mask", k)[i];
    assert_true(read[0] > 1 && read[1] > read[0] && read[2] >= 1 && read[2] < read[0]);
    if (m->info.resolution) {
        const float *size = row_of(&c, "resolution", 0);
        assert_true(size[0] > 0 && size[0] == size[1] && row_of(&c, "aspect_ratio", 0)[0] == 1);
    }
    ht_model_close(m);
}

static void files_that_are_no_prompts_are_refused(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_pipeline("sd1");
    ht_calibrate_options o = few;
    o.prompts = in_root("absent");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_IO, "absent");
    o.prompts = write_prompts(" \n\n");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "has no prompt");
    o.prompts = write_prompts("a \xff cat\n");
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "UTF-8");
    put_bytes(o.prompts, "a\0b\n", 4);
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_FORMAT, "is not a text");
    char *many = ht_alloc(arena, 4000);
    memset(many, '\n', 3999);
    for (int i = 0; i < 3999; i += 2)
        many[i] = 'a';
    put_bytes(o.prompts, many, 3999);
    assert_refused(ht_calibration_make(arena, m, &o, &c), HT_ERR_ARGUMENT, "more than");
    ht_model_close(m);
}

/* ---- quantization ---- */

static double error_of(const ht_model *m, const char *path, const ht_calibration *c)
{
    ht_model *q;
    ht_session *s;
    size_t size = (size_t)c->height * (size_t)c->width * (size_t)m->info.out_channels;
    float *room = ht_alloc_array(arena, ht_contexts_room(&c->contexts, 2), sizeof *room);
    float *want = ht_alloc_array(arena, 2 * size, sizeof *want), *got = ht_alloc_array(arena, 2 * size, sizeof *got);
    const float t[] = {c->timesteps[0], c->timesteps[0]};
    const ht_session_options how = {.batch = 2, .tokens = c->contexts.tokens, .threads = 1};
    ht_cond cond = ht_calibration_cond(c, 0, 2, room);
    assert_ok(ht_model_open(path, NULL, &q));
    const ht_model *models[] = {m, q};
    for (int i = 0; i < 2; i++) {
        assert_ok(ht_session_open((ht_model *)(uintptr_t)models[i], &how, &s));
        assert_ok(ht_predict(s, 2, c->sample, t, &cond, i ? got : want));
        ht_session_close(s);
    }
    ht_model_close(q);
    return relative_error(got, want, 2 * size);
}

/* From conditions of a file; of the largest the default layers, which are tried out one by one.  Bounds are twice what
 * was measured. */
static void conditional_models_are_quantized(void **state)
{
    (void)state;
    static const struct {
        int unet;
        const char *scheme, *layers;
        double bound;
    } cases[] = {{0, "w8a8", "all", 0.3}, {2, "w8a8", "all", 0.3}, {2, "w4a8", "all", 1}, {3, "w4a8", "default", 0.5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = unets[cases[i].unet];
        ht_calibration c;
        ht_model *m = open_unet(name);
        ht_calibrate_options o = few;
        o.conditions = write_conditions(ht_sprintf(arena, "unet/%s", name), true);
        const char *calib = calibrate(m, "calib", o), *path = ht_strdup(arena, in_root("quantized"));
        ht_quantize_options how = {.scheme = cases[i].scheme,
                                   .layers = cases[i].layers,
                                   .rounding = "gptq",
                                   .calibration = calib,
                                   .threads = 1};
        assert_ok(ht_quantize(m, &how, path));
        assert_ok(ht_calibration_read(arena, m, calib, &c));
        double error = error_of(m, path, &c);
        if (!(error > 0 && error < cases[i].bound))
            fail_msg("%s in %s: error %g", name, cases[i].scheme, error);
        remove_path(path);
        ht_model_close(m);
    }
}

static const ht_model_product *product_of(const ht_model *m, const char *name)
{
    ht_products products;
    ht_session *s;
    const ht_model_product *found = NULL;
    assert_ok(ht_session_open((ht_model *)(uintptr_t)m, &(ht_session_options){.threads = 1}, &s));
    assert_ok(ht_products_list(arena, ht_session_graph(s), &products));
    ht_session_close(s);
    for (int i = 0; i < products.n; i++) {
        if (strcmp(products.product[i].name, name) != 0)
            continue;
        assert_null(found);
        found = &products.product[i];
    }
    assert_non_null(found);
    return found;
}

static uint64_t values_counted(const ht_calibration *c, const char *layer)
{
    const ht_observed *in = ht_calibration_find(c, layer, 0);
    uint64_t sum = 0;
    assert_non_null(in);
    for (int i = 0; i < HT_BINS; i++)
        sum += in->by_step[0].bin[i];
    return sum;
}

/* PixArt-alpha embeds height and width by one layer, and what they are to one another by a layer of the same size. */
static void a_weight_of_two_operations_is_one_layer(void **state)
{
    (void)state;
    static const char two[] = "adaln_single.emb.resolution_embedder.linear_1",
                      one[] = "adaln_single.emb.aspect_ratio_embedder.linear_1";
    ht_calibration c;
    ht_model *m = open_pipeline("pixart-alpha");
    ht_calibrate_options o = few;
    o.prompts = write_prompts("a cat\n");
    const char *calib = calibrate(m, "calib", o), *path = ht_strdup(arena, in_root("quantized"));
    assert_int_equal(product_of(m, one)->uses, 1);
    assert_int_equal(product_of(m, two)->uses, 2);
    assert_true(product_of(m, two)->macs == 2 * product_of(m, one)->macs);
    assert_ok(ht_calibration_read(arena, m, calib, &c));
    assert_true(values_counted(&c, one) > 0);
    assert_int_equal(values_counted(&c, two), 2 * values_counted(&c, one));
    ht_quantize_options how = {
        .scheme = "w8a8", .layers = "all", .rounding = "gptq", .calibration = calib, .threads = 1};
    assert_ok(ht_quantize(m, &how, path));
    double error = error_of(m, path, &c);
    if (!(error > 0 && error < 0.05))
        fail_msg("error %g", error);
    ht_model_close(m);
}

/* Their second moments are those of both: of a square picture twice those of one. */
static void moments_of_a_weight_of_two_operations_are_of_both(void **state)
{
    (void)state;
    ht_calibration c;
    ht_products products;
    ht_session *s;
    ht_model *m = open_pipeline("pixart-alpha");
    ht_calibrate_options o = few;
    o.prompts = write_prompts("a cat\n");
    assert_ok(ht_calibration_make(arena, m, &o, &c));
    assert_ok(ht_session_open(m, &(ht_session_options){.threads = 1, .batch = 1}, &s));
    assert_ok(ht_products_list(arena, ht_session_graph(s), &products));
    int at = 0;
    while (strcmp(products.product[at].name, "adaln_single.emb.resolution_embedder.linear_1") != 0)
        at++;
    ht_input_moments *moments = ht_alloc_array(arena, (size_t)products.n, sizeof *moments);
    const double weights[] = {1, 1};
    ht_input_moments_options how = {.batch = 1, .threads = 1, .windows = 1, .weights = weights};
    assert_ok(ht_input_moments_gather(arena, m, &c, &products, &at, 1, &how, moments));
    double trace = 0;
    for (int64_t i = 0; i < moments[at].k; i++)
        trace += (double)moments[at].h[i * moments[at].k + i];
    double want = 2 * (double)c.samples * (double)moments[at].k / 2; /* sines and cosines: each pair is 1 */
    if (!(fabs(trace - want) < 1e-3 * want))
        fail_msg("trace %g, want %g", trace, want);
    ht_session_close(s);
    ht_model_close(m);
}

/* What depends on the prompt alone is computed once a prompt, in a quantized model too. */
static void keys_of_a_prompt_do_not_depend_on_the_timestep(void **state)
{
    (void)state;
    static const char *const sets[] = {"default", "all"};
    for (int i = 0; i < 2; i++) {
        ht_model *m = open_unet("ldm-cin"), *q;
        ht_session *s;
        ht_calibrate_options o = few;
        o.conditions = write_conditions("unet/ldm-cin", true);
        const char *path = ht_strdup(arena, in_root("quantized"));
        ht_quantize_options how = {
            .calibration = calibrate(m, "calib", o), .layers = sets[i], .rounding = "nearest", .threads = 1};
        assert_ok(ht_quantize(m, &how, path));
        assert_ok(ht_model_open(path, NULL, &q));
        assert_ok(ht_session_open(q, &(ht_session_options){.threads = 1}, &s));
        int of_prompt = 0;
        for (int k = 0; k < ht_graph_ops(ht_session_graph(s)); k++) {
            const ht_op *op = ht_graph_op(ht_session_graph(s), k);
            const char *name = ht_op_is_product(op) ? op->in[HT_IN_WEIGHT]->name : "";
            if (!strstr(name, "attn2.to_k") && !strstr(name, "attn2.to_v"))
                continue;
            assert_non_null(op->layer);
            assert_int_equal(op->layer->mode, i ? HT_INPUT_STATIC : HT_INPUT_FLOAT);
            assert_int_equal(op->out->deps, HT_DEPENDS_COND);
            of_prompt++;
        }
        assert_true(of_prompt >= 8);
        ht_session_close(s);
        ht_model_close(q);
        ht_model_close(m);
        remove_path(path);
    }
}

/* The inputs of layers behind a norm, a gate and attention are codes as they are made: nothing makes them after. */
static void norms_and_gates_hand_on_codes(void **state)
{
    (void)state;
    ht_model *m = open_unet("sd1"), *q;
    ht_session *s;
    ht_calibrate_options o = few;
    o.conditions = write_conditions("unet/sd1", true);
    const char *path = ht_strdup(arena, in_root("quantized"));
    ht_quantize_options how = {
        .calibration = calibrate(m, "calib", o), .layers = "all", .rounding = "nearest", .threads = 1};
    assert_ok(ht_quantize(m, &how, path));
    assert_ok(ht_model_open(path, NULL, &q));
    assert_ok(ht_session_open(q, &(ht_session_options){.threads = 1}, &s));
    int makers = 0;
    for (int k = 0; k < ht_graph_ops(ht_session_graph(s)); k++) {
        const ht_op *op = ht_graph_op(ht_session_graph(s), k);
        if (op->kind != HT_OP_layer_norm && op->kind != HT_OP_geglu)
            continue;
        assert_int_equal(op->out->dtype, HT_U8);
        makers++;
    }
    assert_true(makers >= 16);
    ht_session_close(s);
    ht_model_close(q);
    ht_model_close(m);
}

/* Every block of these models, a transformer's among them, can be built anew with gradients by all of its weights. */
static void blocks_of_transformers_can_be_reconstructed(void **state)
{
    (void)state;
    for (int i = 2; i < UNETS_N - 1; i++) {
        static const ht_layers none = {0};
        ht_model *m = open_unet(unets[i]);
        ht_session *s;
        ht_region *regions;
        int n, transformers = 0;
        assert_ok(
            ht_session_open_with(m, &(ht_session_options){.threads = 1}, &(ht_session_extras){.layers = &none}, &s));
        assert_ok(ht_regions_find(ht_session_graph(s), arena, &regions, &n));
        for (int r = 0; r < n; r++) {
            const char *at = strstr(regions[r].name, ".transformer_blocks.");
            ht_graph *g = ht_graph_create(arena);
            ht_region_copy copy;
            ht_value *weights[64], *gradients[64];
            ht_region_build(&regions[r], 2, NULL, g, arena, &copy);
            assert_in_range(regions[r].n_layers, 1, 64);
            for (int k = 0; k < regions[r].n_layers; k++)
                weights[k] = copy.layers[k].weight;
            if (copy.output) {
                ht_value *dy = ht_input(g, "dy", copy.output->ndim, copy.output->shape, HT_DEPENDS_X);
                ht_gradients(g, copy.output, dy, regions[r].n_layers, weights, gradients);
                ht_output_value(g, copy.output, "y");
            }
            if (ht_graph_finish(g, false))
                fail_msg("%s, %s: %s", unets[i], regions[r].name, ht_error_message());
            transformers += at && !strchr(at + strlen(".transformer_blocks."), '.');
        }
        if (transformers < 3)
            fail_msg("%s has %d blocks that are transformers'", unets[i], transformers);
        ht_session_close(s);
        ht_model_close(m);
    }
}

/* Output moments need gradients through every operation of the model. */
static void gradients_go_through_conditional_models(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i += 2) {
        ht_calibration c;
        ht_products products;
        ht_session *s;
        ht_model *m = open_unet(unets[i]);
        ht_calibrate_options o = few;
        o.conditions = write_conditions(ht_sprintf(arena, "unet/%s", unets[i]), true);
        assert_ok(ht_calibration_make(arena, m, &o, &c));
        assert_ok(ht_session_open(m, &(ht_session_options){.threads = 1}, &s));
        assert_ok(ht_products_list(arena, ht_session_graph(s), &products));
        ht_session_close(s);
        const float **moments = ht_alloc_array(arena, (size_t)products.n, sizeof(float *));
        const double weights[] = {1, 1};
        ht_output_moments_options how = {.images = 1, .threads = 1, .weights = weights};
        assert_ok(ht_output_moments_gather(arena, m, &c, &products, &how, moments));
        int there = 0;
        for (int k = 0; k < products.n; k++)
            there += moments[k] != NULL;
        if (there < products.n / 2)
            fail_msg("%s: output moments of %d of %d layers", unets[i], there, products.n);
        ht_model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(samples_are_of_both_branches_and_go_round_the_prompts),
        CASE(trajectories_are_guided),
        CASE(the_same_settings_give_the_same_bytes_at_any_batch),
        CASE(what_was_written_is_read),
        CASE(a_calibration_can_be_predicted),
        CASE(damaged_contexts_are_refused),
        CASE(what_a_model_lacks_is_said),
        CASE(lines_of_a_file_are_prompts),
        CASE(sdxl_has_what_its_denoiser_takes),
        CASE(a_distilled_model_is_told_of_the_guidance),
        CASE(pixart_has_what_its_denoiser_takes),
        CASE(files_that_are_no_prompts_are_refused),
        CASE(conditional_models_are_quantized),
        CASE(a_weight_of_two_operations_is_one_layer),
        CASE(moments_of_a_weight_of_two_operations_are_of_both),
        CASE(keys_of_a_prompt_do_not_depend_on_the_timestep),
        CASE(norms_and_gates_hand_on_codes),
        CASE(blocks_of_transformers_can_be_reconstructed),
        CASE(gradients_go_through_conditional_models),
    };
    (void)options, (void)classes;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
