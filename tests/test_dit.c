/* test_dit.c - DiT and PixArt against what diffusers and facebookresearch/DiT computed: every case of
 * tests/goldens/index.json that is one, through the public API, at the case's own tolerance; which stage makes what;
 * configurations and models that are refused. */
#include <math.h>

#include "dit/dit.h"
#include "graph/backend.h"
#include "sampler/guide.h"
#include "sampler/session.h"
#include "tests/predictions.h"

#define DIT    GOLDENS "/dit/dit"
#define ALPHA  GOLDENS "/dit/pixart-alpha"
#define SIGMA  GOLDENS "/dit/pixart-sigma"
#define DIT_P2 GOLDENS "/dit_original/dit-p2"

static void for_each_case(void (*checked)(const evaluation *))
{
    check = checked;
    evaluations = 0;
    assert_int_equal(golden_each("dit", NULL, for_each_evaluation_of), 3);
    assert_int_equal(golden_each("dit_original", NULL, for_each_evaluation_of), 2);
    assert_int_equal(evaluations, 5 + 6 + 6 + 2 * 5);
}

static void predictions_are_those_of_diffusers_and_facebook(void **state)
{
    (void)state;
    for_each_case(check_close);
}

static void predictions_do_not_depend_on_batch_threads_or_instructions(void **state)
{
    (void)state;
    for_each_case(check_batches);
}

/* ---- guidance as facebook's forward_with_cfg has it ---- */

/* Labels, then as many null classes, of the same x; the first three channels led, the rest each half's own. */
static void check_cfg(const char *name, const json_t *entry)
{
    char path[512];
    ht_model *m;
    ht_session *s;
    ht_model_info info;
    ht_safetensors *golden = golden_open(name, "golden.safetensors");
    const ht_tensor *t = tensor_of(golden, "cfg.x");
    int n = (int)t->shape[0], pixels = (int)(t->shape[2] * t->shape[3]);
    float *x = images_of(golden, "cfg.x"), *y = floats_of(golden, "cfg.y"), *times = floats_of(golden, "cfg.t");
    float *want = images_of(golden, "cfg.out");
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    assert_ok(ht_model_open(path, NULL, &m));
    ht_model_get_info(m, &info);
    size_t image = (size_t)pixels * (size_t)info.out_channels, half = (size_t)(n / 2) * image;
    float *out = calloc(2 * half, sizeof *out);
    assert_non_null(out);
    assert_ok(ht_session_open(m, &(ht_session_options){.batch = n, .height = info.height, .width = info.width}, &s));
    assert_ok(ht_predict(s, n, x, times, &(ht_cond){.class_labels = y}, out));
    for (int i = 0; i < n / 2; i++) {
        const ht_guidance g = {.scale = 4, .pixels = (size_t)pixels, .channels = info.out_channels, .guided = 3};
        ht_guide(&g, out + half + (size_t)i * image, out + (size_t)i * image);
        assert_close(name, out + half + (size_t)i * image, want + (size_t)i * image, image,
                     golden_real(entry, "tolerance"));
    }
    ht_session_close(s);
    ht_model_close(m);
    ht_safetensors_close(golden);
    free(out);
    free(want);
    free(times);
    free(y);
    free(x);
}

static void three_channels_are_led_as_facebook_leads_them(void **state)
{
    (void)state;
    assert_int_equal(golden_each("dit_original", NULL, check_cfg), 2);
}

/* ---- stages ---- */

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* How many operations have a weight of this name, all of them in a stage. */
static int in_stage(const ht_graph *g, const char *weight, ht_stage stage)
{
    int found = 0;
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        if (!op->in[HT_IN_WEIGHT] || !ends(op->in[HT_IN_WEIGHT]->name, weight))
            continue;
        assert_int_equal(ht_stage_of(op->out->deps), stage);
        found++;
    }
    return found;
}

static void rows_of_timestep_and_class_are_not_made_every_step(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open(DIT, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.batch = 2}, &s));
    assert_int_equal(in_stage(ht_session_graph(s), "timestep_embedder.linear_2.weight", HT_STAGE_T), 2);
    assert_int_equal(in_stage(ht_session_graph(s), "norm1.linear.weight", HT_STAGE_T_COND), 2);
    assert_int_equal(in_stage(ht_session_graph(s), "proj_out_1.weight", HT_STAGE_T_COND), 1);
    assert_int_equal(in_stage(ht_session_graph(s), "attn1.to_q.weight", HT_STAGE_STEP), 2);
    ht_session_close(s);
    ht_model_close(m);
    assert_ok(ht_model_open(SIGMA, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.batch = 2}, &s));
    assert_int_equal(in_stage(ht_session_graph(s), "adaln_single.linear.weight", HT_STAGE_T), 1);
    assert_int_equal(in_stage(ht_session_graph(s), "attn2.to_k.weight", HT_STAGE_COND), 2);
    assert_int_equal(in_stage(ht_session_graph(s), "attn2.to_out.0.weight", HT_STAGE_STEP), 2);
    ht_session_close(s);
    ht_model_close(m);
}

/* ---- sizes ---- */

/* Positions by what diffusers' get_2d_sincos_pos_embed gives, worked out by hand: of a grid of 3 x 2 in the place of
 * one of 4 x 4, row 2 stands at 2 / (3 / 4), column 1 at 1 / (2 / 4). */
static void positions_are_stretched_to_the_grid_of_sample_size(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open(DIT, NULL, &m));
    assert_ok(ht_session_open_taps(m, &(ht_session_options){.height = 6, .width = 4}, NULL, true, &s));
    const ht_graph *g = ht_session_graph(s);
    const float *table = NULL;
    for (int i = 0; i < ht_graph_ops(g); i++)
        if (ht_graph_op(g, i)->kind == HT_OP_add_position)
            table = ht_graph_op(g, i)->in[HT_IN_WEIGHT]->data->data;
    assert_non_null(table);
    const float *row = table + 24 * (2 * 2 + 1), column_at = 2, row_at = 2 / 0.75f;
    for (int i = 0; i < 6; i++) {
        double frequency = pow(10000, -i / 6.0);
        assert_float_equal(row[i], (float)sin((double)column_at * frequency), 1e-6);
        assert_float_equal(row[6 + i], (float)cos((double)column_at * frequency), 1e-6);
        assert_float_equal(row[12 + i], (float)sin((double)row_at * frequency), 1e-6);
        assert_float_equal(row[18 + i], (float)cos((double)row_at * frequency), 1e-6);
    }
    ht_session_close(s);
    assert_refused(ht_session_open(m, &(ht_session_options){.height = 7, .width = 4}, &s), HT_ERR_ARGUMENT,
                   "multiple of 2");
    ht_model_close(m);
}

/* ---- what is refused ---- */

static const struct {
    const char *base, *patch, *words;
} refusals[] = {
    {DIT, "{\"activation_fn\": \"geglu\"}", "activation_fn \"geglu\""},
    {DIT, "{\"attention_head_dim\": 7}", "is not a multiple of 4"},
    {DIT, "{\"attention_head_dim\": 65536}", "is more than 65536"},
    {DIT, "{\"attention_type\": \"gated\"}", "attention_type \"gated\""},
    {DIT, "{\"double_self_attention\": true}", "double_self_attention"},
    {DIT, "{\"norm_elementwise_affine\": true}", "norm_elementwise_affine"},
    {DIT, "{\"norm_type\": \"layer_norm\"}", "norm_type \"layer_norm\""},
    {DIT, "{\"patch_size\": 3}", "sample_size 8 is not a multiple of patch_size 3"},
    {DIT, "{\"caption_channels\": 3}", "caption_channels"},
    {ALPHA, "{\"cross_attention_dim\": 23}", "cross_attention_dim is 23"},
    {ALPHA, "{\"attention_head_dim\": 8}", "cross_attention_dim is 24"},
    {ALPHA, "{\"attention_head_dim\": 8, \"cross_attention_dim\": 16}", "3 divides, not 16"},
    {ALPHA, "{\"interpolation_scale\": 0}", "interpolation_scale"},
    {ALPHA, "{\"kv_compress_config\": {}}", "kv_compress_config"},
    {DIT_P2, "{\"mlp_ratio\": 3}", "mlp_ratio 3"},
    {DIT_P2, "{\"class_dropout_prob\": 0}", "class_dropout_prob 0"},
    {DIT_P2, "{\"num_heads\": 5}", "hidden_size 36 is not a multiple of num_heads 5"},
    {DIT_P2, "{\"qk_norm\": true}", "qk_norm"},
};

static ht_status read_config(const char *base, const json_t *config, const char *path)
{
    ht_dit_config dit;
    ht_pixart_config pixart;
    json_t *translated = NULL;
    if (!strcmp(base, DIT_P2)) {
        assert_true(ht_facebook_recognizes(config));
        ht_status status = ht_facebook_translate(config, path, &translated);
        if (!status)
            status = ht_dit_config_read(translated, path, &dit);
        json_decref(translated);
        return status;
    }
    return strcmp(base, DIT) ? ht_pixart_config_read(config, path, &pixart) : ht_dit_config_read(config, path, &dit);
}

static void configurations_of_other_networks_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        char path[256];
        json_t *config, *patch = json_loads(refusals[i].patch, 0, NULL);
        snprintf(path, sizeof path, "%s/config.json", refusals[i].base);
        assert_ok(ht_json_read(path, &config));
        assert_ok(read_config(refusals[i].base, config, path));
        assert_non_null(patch);
        json_object_update(config, patch);
        ht_status status = read_config(refusals[i].base, config, path);
        if (!status || !strstr(ht_error_message(), refusals[i].words))
            fail_msg("%s: status %d, message \"%s\"; want \"%s\"", refusals[i].patch, status,
                     status ? ht_error_message() : "", refusals[i].words);
        json_decref(patch);
        json_decref(config);
    }
}

static void other_families_are_named(void **state)
{
    (void)state;
    static const char *const classes[] = {"SD3Transformer2DModel", "FluxTransformer2DModel", "Transformer2DModel"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        ht_model *m;
        json_t *config = json_pack("{s:s, s:i}", "_class_name", classes[i], "num_layers", 2);
        assert_int_equal(json_dump_file(config, in_folder("config.json"), 0), 0);
        assert_refused(ht_model_open(in_folder(""), NULL, &m), HT_ERR_UNSUPPORTED, classes[i]);
        json_decref(config);
    }
}

/* As facebook/DiT-XL-2-256 and PixArt-alpha were published. */
static void models_of_before_they_had_classes_are_known_by_their_norm(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"ada_norm_zero", "DiTTransformer2DModel"},
                                          {"ada_norm_single", "PixArtTransformer2DModel"},
                                          {"layer_norm", "Transformer2DModel"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *config = json_pack("{s:s, s:s}", "_class_name", "Transformer2DModel", "norm_type", rows[i][0]);
        assert_string_equal(ht_dit_class_name(config), rows[i][1]);
        json_decref(config);
    }
}

/* A caption of which nothing is looked at gives no weight to one token more than to another. */
static void masks_and_sizes_are_checked(void **state)
{
    (void)state;
    enum { TOKENS = 3, WIDTH = 32, SIDE = 8 };
    static float x[SIDE * SIDE * 4], out[SIDE * SIDE * 8], caption[TOKENS * WIDTH], mask[TOKENS], size[2] = {8, 8},
                                                                                                  ratio = 1;
    const float t = 10;
    ht_model *m;
    ht_session *s;
    ht_cond cond = {.encoder_hidden_states = caption, .encoder_attention_mask = mask, .aspect_ratio = &ratio};
    assert_ok(ht_model_open(ALPHA, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.tokens = TOKENS}, &s));
    assert_refused(ht_predict(s, 1, x, &t, &cond, out), HT_ERR_ARGUMENT, "needs resolution of 2 numbers");
    cond.resolution = size;
    assert_ok(ht_predict(s, 1, x, &t, &cond, out));
    for (int i = 0; i < SIDE * SIDE * 8; i++)
        assert_true(isfinite(out[i]));
    mask[1] = NAN;
    assert_refused(ht_predict(s, 1, x, &t, &cond, out), HT_ERR_ARGUMENT, "encoder_attention_mask of image 0");
    ht_session_close(s);
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_diffusers_and_facebook),
        cmocka_unit_test(predictions_do_not_depend_on_batch_threads_or_instructions),
        cmocka_unit_test(three_channels_are_led_as_facebook_leads_them),
        cmocka_unit_test(rows_of_timestep_and_class_are_not_made_every_step),
        cmocka_unit_test(positions_are_stretched_to_the_grid_of_sample_size),
        cmocka_unit_test(configurations_of_other_networks_are_refused),
        cmocka_unit_test(other_families_are_named),
        cmocka_unit_test(models_of_before_they_had_classes_are_known_by_their_norm),
        cmocka_unit_test(masks_and_sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
