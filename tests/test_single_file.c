/* test_single_file.c - a whole Stable Diffusion in one file, in the names of the original code: its U-Net and its
 * autoencoder against what diffusers computed with them; how names are read; what is refused. */
#include <unistd.h>

#include "tests/predictions.h"
#include "unet/names_ldm.h"
#include "vae/names_ldm.h"

#define SINGLE GOLDENS "/ldm_single/sd1/model.safetensors"

static void check_components(const char *name, const json_t *entry)
{
    for_each_evaluation_with(SINGLE, "unet", name, entry);
    for_each_evaluation_with(SINGLE, "vae", name, entry);
}

static void components_compute_what_they_do_in_diffusers(void **state)
{
    (void)state;
    check = check_close;
    evaluations = 0;
    assert_int_equal(golden_each("ldm_single", NULL, check_components), 1);
    assert_int_equal(evaluations, 6 + 2);
}

static void without_a_component_the_denoiser_is_meant(void **state)
{
    (void)state;
    ht_model *m;
    ht_model_info info;
    assert_ok(ht_model_open(SINGLE, NULL, &m));
    ht_model_get_info(m, &info);
    assert_string_equal(info.class_name, "UNet2DConditionModel");
    ht_model_close(m);
}

/* ---- names ---- */

/* As SD 1.x numbers them: four levels of two. */
/* clang-format off */
static const struct {
    ht_rename rename;
    const char *from, *to; /* NULL: of another component */
} names[] = {
    {ht_ldm_unet_rename, "model.diffusion_model.input_blocks.0.0.weight", "conv_in.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.input_blocks.1.0.in_layers.0.bias", "down_blocks.0.resnets.0.norm1.bias"},
    {ht_ldm_unet_rename, "model.diffusion_model.input_blocks.2.1.proj_in.weight", "down_blocks.0.attentions.1.proj_in.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"},
    {ht_ldm_unet_rename, "model.diffusion_model.input_blocks.11.0.out_layers.3.weight", "down_blocks.3.resnets.1.conv2.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.middle_block.2.skip_connection.weight", "mid_block.resnets.1.conv_shortcut.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.output_blocks.11.1.norm.weight", "up_blocks.3.attentions.2.norm.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.output_blocks.12.0.emb_layers.1.weight", "output_blocks.12.0.emb_layers.1.weight"},
    {ht_ldm_unet_rename, "model.diffusion_model.label_emb.0.2.bias", "add_embedding.linear_2.bias"},
    {ht_ldm_unet_rename, "model.diffusion_model.out.2.bias", "conv_out.bias"},
    {ht_ldm_unet_rename, "first_stage_model.quant_conv.bias", NULL},
    {ht_ldm_unet_rename, "alphas_cumprod", NULL},
    {ht_ldm_vae_rename, "first_stage_model.quant_conv.bias", "quant_conv.bias"},
    {ht_ldm_vae_rename, "first_stage_model.decoder.up.3.upsample.conv.bias", "decoder.up_blocks.0.upsamplers.0.conv.bias"},
    {ht_ldm_vae_rename, "first_stage_model.encoder.mid.attn_1.proj_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"},
    {ht_ldm_vae_rename, "first_stage_model.encoder.norm_out.bias", "encoder.conv_norm_out.bias"},
    {ht_ldm_vae_rename, "model.diffusion_model.out.2.bias", NULL},
};
/* clang-format on */

static void names_become_those_of_diffusers(void **state)
{
    (void)state;
    const ht_ldm_levels levels = {4, {2, 2, 2, 2}};
    ht_arena *arena = ht_arena_create();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *got = names[i].rename(arena, names[i].from, &levels);
        if (!got != !names[i].to || (got && strcmp(got, names[i].to) != 0))
            fail_msg("%s becomes %s, want %s", names[i].from, got ? got : "nothing",
                     names[i].to ? names[i].to : "nothing");
    }
    ht_arena_free(arena);
}

/* ---- what is refused ---- */

static void files_without_the_component_or_its_configuration_are_refused(void **state)
{
    (void)state;
    char target[512];
    ht_model *m;
    assert_refused(ht_model_open(SINGLE, "safety_checker", &m), HT_ERR_ARGUMENT, "no component named safety_checker");
    assert_non_null(getcwd(target, sizeof target - sizeof "/" SINGLE));
    strcat(target, "/" SINGLE);
    assert_int_equal(symlink(target, in_folder("alone.safetensors")), 0);
    assert_refused(ht_model_open(in_folder("alone.safetensors"), NULL, &m), HT_ERR_UNSUPPORTED, "unet.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_compute_what_they_do_in_diffusers),
        cmocka_unit_test(without_a_component_the_denoiser_is_meant),
        cmocka_unit_test(names_become_those_of_diffusers),
        cmocka_unit_test(files_without_the_component_or_its_configuration_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
