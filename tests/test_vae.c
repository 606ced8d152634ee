/* test_vae.c - AutoencoderKL, VQModel and AutoencoderTiny against what diffusers computed: every case of
 * tests/goldens/index.json of kind vae, decoded and encoded through the public API, at the case's own tolerance;
 * configurations and inputs that are refused. */
#include "tests/predictions.h"
#include "vae/vae.h"

#define KL   GOLDENS "/vae/kl-sd1"
#define VQ   GOLDENS "/vae/vq-f4"
#define TINY GOLDENS "/vae/taesd"

static void for_each_case(void (*checked)(const evaluation *))
{
    check = checked;
    evaluations = 0;
    assert_int_equal(golden_each("vae", NULL, for_each_evaluation_of), 5);
    assert_int_equal(evaluations, 2 * 5);
}

static void pictures_and_latents_are_those_of_diffusers(void **state)
{
    (void)state;
    for_each_case(check_close);
}

static void they_do_not_depend_on_batch_threads_or_instructions(void **state)
{
    (void)state;
    for_each_case(check_batches);
}

static void check_indices(const evaluation *e)
{
    const char *name = json_string_value(json_object_get(e->outputs, "indices"));
    if (!name)
        return;
    ht_safetensors *file = predict(e, NULL);
    const ht_tensor *got = tensor_of(file, "indices"), *want = tensor_of(e->golden, name);
    assert_int_equal(got->dtype, HT_I64);
    assert_int_equal(got->bytes, want->bytes);
    assert_memory_equal(got->data, want->data, want->bytes);
    ht_safetensors_close(file);
}

static void the_nearest_rows_of_a_codebook_are_found_exactly(void **state)
{
    (void)state;
    for_each_case(check_indices);
}

/* ---- what is refused ---- */

typedef ht_status reader(const json_t *object, const char *where);

static ht_status read_kl(const json_t *object, const char *where)
{
    return ht_kl_config_read(object, where, &(ht_vae_config){0});
}

static ht_status read_vq(const json_t *object, const char *where)
{
    return ht_vq_config_read(object, where, &(ht_vae_config){0});
}

static ht_status read_tiny(const json_t *object, const char *where)
{
    return ht_tiny_config_read(object, where, &(ht_tiny_config){0});
}

static const struct {
    const char *base;
    reader *read;
    const char *patch, *words;
} refusals[] = {
    {KL, read_kl, "{\"act_fn\": \"relu\"}", "act_fn \"relu\""},
    {KL, read_kl, "{\"block_out_channels\": [8]}", "down_block_types has 2 entries, block_out_channels 1"},
    {KL, read_kl, "{\"block_out_channels\": [8, 9]}", "block_out_channels 9 is not a multiple of norm_num_groups 4"},
    {KL, read_kl, "{\"block_out_channels\": []}", "block_out_channels is empty"},
    {KL, read_kl, "{\"down_block_types\": [\"DownEncoderBlock2D\", \"AttnDownEncoderBlock2D\"]}",
     "AttnDownEncoderBlock2D"},
    {KL, read_kl, "{\"latent_channels\": 0}", "latent_channels"},
    {KL, read_kl, "{\"latents_mean\": [0, 0, 0, 0]}", "latents_mean"},
    {KL, read_kl, "{\"layers_per_block\": [2, 2]}", "layers_per_block"},
    {KL, read_kl, "{\"scaling_factor\": 0}", "scaling_factor"},
    {KL, read_kl, "{\"use_quant_conv\": 1}", "use_quant_conv"},
    {KL, read_kl, "{\"vq_embed_dim\": 4}", "vq_embed_dim"},
    {VQ, read_vq, "{\"norm_type\": \"spatial\"}", "norm_type \"spatial\""},
    {VQ, read_vq, "{\"num_vq_embeddings\": 100000000}", "num_vq_embeddings"},
    {TINY, read_tiny, "{\"act_fn\": \"gelu\"}", "act_fn \"gelu\""},
    {TINY, read_tiny, "{\"decoder_block_out_channels\": [8, 8, 8, 16]}", "decoder_block_out_channels has 16 beside 8"},
    {TINY, read_tiny, "{\"num_encoder_blocks\": [1, 2]}", "encoder_block_out_channels has 4 entries"},
    {TINY, read_tiny, "{\"upsample_fn\": \"bilinear\"}", "upsample_fn \"bilinear\""},
    {TINY, read_tiny, "{\"upsampling_scaling_factor\": 3}", "upsampling_scaling_factor"},
};

static void configurations_of_other_autoencoders_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        char path[256];
        json_t *config, *patch = json_loads(refusals[i].patch, 0, NULL);
        snprintf(path, sizeof path, "%s/config.json", refusals[i].base);
        assert_ok(ht_json_read(path, &config));
        assert_ok(refusals[i].read(config, path));
        assert_non_null(patch);
        json_object_update(config, patch);
        ht_status status = refusals[i].read(config, path);
        if (!status || !strstr(ht_error_message(), refusals[i].words))
            fail_msg("%s: status %d, message \"%s\"; want \"%s\"", refusals[i].patch, status,
                     status ? ht_error_message() : "", refusals[i].words);
        json_decref(patch);
        json_decref(config);
    }
}

static ht_status predict_tensors(ht_model *m, const ht_tensor *tensors, size_t n)
{
    assert_ok(ht_safetensors_write(in_folder("in.safetensors"), tensors, n, NULL, 0));
    return ht_predict_file(m, NULL, in_folder("in.safetensors"), in_folder("out.safetensors"), NULL, NULL);
}

static void inputs_that_are_not_one_picture_or_latent_are_refused(void **state)
{
    (void)state;
    static const float values[5 * 8 * 8];
    ht_model *m;
    const ht_tensor z = {
        .name = "z", .dtype = HT_F32, .ndim = 4, .shape = {1, 4, 4, 4}, .data = values, .count = 64, .bytes = 256};
    ht_tensor wide = z, tensors[2] = {z, z};
    wide.shape[1] = 5;
    wide.count = 80;
    wide.bytes = 320;
    tensors[1].name = "x";
    assert_ok(ht_model_open(KL, NULL, &m));
    assert_ok(predict_tensors(m, &z, 1));
    assert_refused(predict_tensors(m, &wide, 1), HT_ERR_SHAPE, "z must be [n,4,h,w]");
    assert_refused(predict_tensors(m, tensors, 2), HT_ERR_ARGUMENT, "not both");
    tensors[1].name = "sample";
    assert_refused(predict_tensors(m, tensors + 1, 1), HT_ERR_ARGUMENT, "z to decode or one called x");
    ht_model_close(m);
}

static void an_autoencoder_is_not_sampled_from(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    ht_model_info info;
    assert_ok(ht_model_open(KL, NULL, &m));
    ht_model_get_info(m, &info);
    assert_string_equal(info.class_name, "AutoencoderKL");
    assert_int_equal(info.height, 32);
    assert_refused(ht_session_open(m, NULL, &s), HT_ERR_UNSUPPORTED, "is an autoencoder, AutoencoderKL");
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_and_latents_are_those_of_diffusers),
        cmocka_unit_test(they_do_not_depend_on_batch_threads_or_instructions),
        cmocka_unit_test(the_nearest_rows_of_a_codebook_are_found_exactly),
        cmocka_unit_test(configurations_of_other_autoencoders_are_refused),
        cmocka_unit_test(inputs_that_are_not_one_picture_or_latent_are_refused),
        cmocka_unit_test(an_autoencoder_is_not_sampled_from),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
