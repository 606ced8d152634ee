/* test_unet_condition.c - UNet2DConditionModel against what diffusers computed: every case of tests/goldens/index.json
 * that is one, through the public API, at the case's own tolerance; which stage makes what; configurations and
 * conditions that are refused. */
#include "graph/backend.h"
#include "sampler/session.h"
#include "tests/predictions.h"
#include "unet/unet2d_condition.h"

#define SD1  GOLDENS "/unet/sd1"
#define SDXL GOLDENS "/unet/sdxl"

static void for_each_case(void (*checked)(const evaluation *))
{
    check = checked;
    evaluations = 0;
    assert_int_equal(golden_each("unet", "UNet2DConditionModel", for_each_evaluation_of), 5);
    assert_true(evaluations >= 5 * 7);
}

static void predictions_are_those_of_diffusers(void **state)
{
    (void)state;
    for_each_case(check_close);
}

static void predictions_do_not_depend_on_batch_threads_or_instructions(void **state)
{
    (void)state;
    for_each_case(check_batches);
}

/* ---- stages ---- */

static const ht_graph *graph_of(const char *path, ht_model **model, ht_session **session)
{
    assert_ok(ht_model_open(path, NULL, model));
    assert_ok(ht_session_open(*model, &(ht_session_options){.batch = 2, .height = 8, .width = 8}, session));
    return ht_session_graph(*session);
}

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static void keys_and_values_of_the_prompt_are_made_once_a_prompt(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    const ht_graph *g = graph_of(SD1, &m, &s);
    int once = 0, steps = 0;
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        const char *name = op->in[HT_IN_WEIGHT] ? op->in[HT_IN_WEIGHT]->name : "";
        bool of_prompt = ends(name, "attn2.to_k.weight") || ends(name, "attn2.to_v.weight");
        ht_stage stage = ht_stage_of(op->out->deps);
        if (of_prompt)
            assert_int_equal(stage, HT_STAGE_COND);
        if (ends(name, "time_emb_proj.weight"))
            assert_int_equal(stage, HT_STAGE_T);
        once += of_prompt;
        steps += stage == HT_STAGE_STEP;
    }
    assert_int_equal(once, 2 * (2 * 2 + 1 + 2 * 3)); /* two of each transformer: down, middle, up */
    assert_true(steps > 0);
    ht_session_close(s);
    ht_model_close(m);
}

static void what_sizes_add_to_time_is_made_once_a_timestep_and_prompt(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    const ht_graph *g = graph_of(SDXL, &m, &s);
    const ht_value *time = ht_graph_find(g, "time_embedding"), *added = ht_graph_find(g, "add_embedding.linear_2");
    assert_true(time && ht_stage_of(time->deps) == HT_STAGE_T);
    assert_true(added && (ht_stage_of(added->deps) == HT_STAGE_COND || ht_stage_of(added->deps) == HT_STAGE_T_COND));
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        if (op->in[HT_IN_WEIGHT] && ends(op->in[HT_IN_WEIGHT]->name, "time_emb_proj.weight"))
            assert_int_equal(ht_stage_of(op->out->deps), HT_STAGE_T_COND);
    }
    ht_session_close(s);
    ht_model_close(m);
}

/* ---- what is refused ---- */

static const struct {
    const char *base, *patch, *words;
} refusals[] = {
    {SD1, "{\"act_fn\": \"gelu\"}", "act_fn \"gelu\""},
    {SD1, "{\"addition_embed_type\": \"image_hint\"}", "addition_embed_type \"image_hint\""},
    {SD1, "{\"attention_head_dim\": [8, 8]}", "attention_head_dim has 2 entries, block_out_channels 3"},
    {SD1, "{\"attention_head_dim\": 9}", "attention_head_dim 9, which counts heads, is more than the 8"},
    {SD1, "{\"attention_type\": \"gated\"}", "attention_type \"gated\""},
    {SD1, "{\"block_out_channels\": [8, 8]}", "down_block_types has 3 entries"},
    {SD1, "{\"block_out_channels\": [8, 8, 18]}", "block_out_channels 18 is not a multiple of norm_num_groups 4"},
    {SD1, "{\"class_embed_type\": \"simple_projection\"}", "class_embed_type \"simple_projection\""},
    {SD1, "{\"class_embed_type\": \"projection\"}", "projection_class_embeddings_input_dim"},
    {SD1, "{\"class_embeddings_concat\": true}", "class_embeddings_concat"},
    {SD1, "{\"conv_in_kernel\": 4}", "conv_in_kernel must be odd"},
    {SD1, "{\"cross_attention_dim\": [16, 16, 16]}", "cross_attention_dim"},
    {SD1, "{\"cross_attention_norm\": \"layer_norm\"}", "cross_attention_norm"},
    {SD1, "{\"down_block_types\": [\"CrossAttnDownBlock2D\", \"SimpleCrossAttnDownBlock2D\", \"DownBlock2D\"]}",
     "SimpleCrossAttnDownBlock2D"},
    {SD1, "{\"dual_cross_attention\": true}", "dual_cross_attention"},
    {SD1, "{\"encoder_hid_dim_type\": \"text_proj\"}", "encoder_hid_dim_type"},
    {SD1, "{\"freq_shift\": 4}", "freq_shift is 4"},
    {SD1, "{\"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\"}", "UNetMidBlock2DSimpleCrossAttn"},
    {SD1, "{\"norm_num_groups\": null}", "norm_num_groups null"},
    {SD1, "{\"num_attention_heads\": 8}", "num_attention_heads"},
    {SD1, "{\"only_cross_attention\": true}", "only_cross_attention"},
    {SD1, "{\"resnet_out_scale_factor\": 2}", "resnet_out_scale_factor 2"},
    {SD1, "{\"time_embedding_type\": \"fourier\"}", "time_embedding_type \"fourier\""},
    {SD1, "{\"timestep_post_act\": \"silu\"}", "timestep_post_act"},
    {SD1, "{\"transformer_layers_per_block\": [1, [1, 2], 1]}", "transformer_layers_per_block"},
    {SDXL, "{\"addition_time_embed_dim\": 16}", "projection_class_embeddings_input_dim 80 has no room"},
    {SDXL, "{\"addition_time_embed_dim\": null}", "addition_time_embed_dim 0"},
    {SDXL, "{\"projection_class_embeddings_input_dim\": null}", "projection_class_embeddings_input_dim"},
};

static void configurations_of_other_networks_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        char path[256];
        json_t *config, *patch = json_loads(refusals[i].patch, 0, NULL);
        ht_unet2d_condition_config c;
        snprintf(path, sizeof path, "%s/config.json", refusals[i].base);
        assert_ok(ht_json_read(path, &config));
        assert_ok(ht_unet2d_condition_config_read(config, path, &c));
        assert_non_null(patch);
        json_object_update(config, patch);
        ht_status status = ht_unet2d_condition_config_read(config, path, &c);
        if (!status || !strstr(ht_error_message(), refusals[i].words))
            fail_msg("%s: status %d, message \"%s\"; want \"%s\"", refusals[i].patch, status,
                     status ? ht_error_message() : "", refusals[i].words);
        json_decref(patch);
        json_decref(config);
    }
}

static void conditions_that_are_missing_too_many_or_not_numbers_are_refused(void **state)
{
    (void)state;
    enum { SIDE = 8, TOKENS = 3, WIDTH = 16 };
    static float x[SIDE * SIDE * 4], out[SIDE * SIDE * 4], prompt[TOKENS * WIDTH];
    const float t = 10;
    ht_model *m;
    ht_session *s;
    ht_model_info info;
    assert_ok(ht_model_open(SD1, NULL, &m));
    ht_model_get_info(m, &info);
    assert_int_equal(info.cross_attention_dim, WIDTH);
    assert_int_equal(info.text_embed_dim, 0);
    assert_ok(ht_session_open(m, &(ht_session_options){.height = SIDE, .width = SIDE, .tokens = TOKENS}, &s));
    assert_refused(ht_predict(s, 1, x, &t, NULL, out), HT_ERR_ARGUMENT, "needs encoder_hidden_states of 48 numbers");
    ht_cond cond = {.encoder_hidden_states = prompt};
    assert_ok(ht_predict(s, 1, x, &t, &cond, out));
    cond.time_ids = prompt;
    assert_refused(ht_predict(s, 1, x, &t, &cond, out), HT_ERR_ARGUMENT, "takes no time_ids");
    cond.time_ids = NULL;
    prompt[TOKENS * WIDTH - 1] = NAN;
    assert_refused(ht_predict(s, 1, x, &t, &cond, out), HT_ERR_ARGUMENT, "encoder_hidden_states of image 0");
    ht_session_close(s);
    assert_refused(ht_session_open(m, &(ht_session_options){.tokens = -1}, &s), HT_ERR_ARGUMENT, "tokens -1");
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_diffusers),
        cmocka_unit_test(predictions_do_not_depend_on_batch_threads_or_instructions),
        cmocka_unit_test(keys_and_values_of_the_prompt_are_made_once_a_prompt),
        cmocka_unit_test(what_sizes_add_to_time_is_made_once_a_timestep_and_prompt),
        cmocka_unit_test(configurations_of_other_networks_are_refused),
        cmocka_unit_test(conditions_that_are_missing_too_many_or_not_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
