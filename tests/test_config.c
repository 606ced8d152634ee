/* test_config.c - configurations that are not supported, hostile, or of another model than the weights: one line each
 * that names what is wrong. */
#include <sys/stat.h>

#include "core/file.h"
#include "halftone.h"
#include "tests/folder.h"
#include "tests/goldens.h"
#include "unet/unet2d.h"

/* ---- configurations alone ---- */

static json_t *read_base(const char *path)
{
    json_t *base;
    assert_ok(ht_json_read(path, &base));
    return base;
}

/* The base with the keys of a patch in place of its own. */
static json_t *patched(const json_t *base, const char *patch)
{
    json_t *changes = json_loads(patch, 0, NULL), *object = json_deep_copy(base);
    assert_non_null(changes);
    assert_int_equal(json_object_update(object, changes), 0);
    json_decref(changes);
    return object;
}

/* All of the words, separated by '|', in the last message, which is one line. */
static void assert_message(const char *words, const char *patch)
{
    char list[256], *rest = list;
    snprintf(list, sizeof list, "%s", words);
    for (char *word; (word = strsep(&rest, "|"));)
        if (!strstr(ht_error_message(), word))
            fail_msg("%s: the message should say \"%s\": %s", patch, word, ht_error_message());
    if (strchr(ht_error_message(), '\n'))
        fail_msg("%s: the message has more than one line", patch);
}

typedef struct refusal {
    const char *patch, *words;
} refusal;

static const refusal refusals[] = {
    {"{\"act_fn\": \"mish\"}", "act_fn|mish|silu"},
    {"{\"act_fn\": 3}", "act_fn|3"},
    {"{\"add_attention\": \"yes\"}", "add_attention|yes"},
    {"{\"attention_head_dim\": 0}", "attention_head_dim|0"},
    {"{\"attention_head_dim\": 9}", "attention_head_dim|9|8"},
    {"{\"attention_head_dim\": [8, 8, 8, 8]}", "attention_head_dim"},
    {"{\"attn_norm_num_groups\": 3}", "attn_norm_num_groups 3|block_out_channels 8"},
    {"{\"block_out_channels\": []}", "block_out_channels|empty"},
    {"{\"block_out_channels\": [8, 8, 8]}", "block_out_channels 3|down_block_types has 4"},
    {"{\"block_out_channels\": [8, 8, 6, 8]}", "block_out_channels 6|norm_num_groups 4"},
    {"{\"block_out_channels\": [8, 8, -8, 8]}", "block_out_channels|-8"},
    {"{\"block_out_channels\": [8, 8, 1099511627776, 8]}", "block_out_channels|1099511627776"},
    {"{\"block_out_channels\": [4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4]}", "block_out_channels|16"},
    {"{\"block_out_channels\": [8, 8, \"8\", 8]}", "block_out_channels"},
    {"{\"block_out_channels\": 8}", "block_out_channels|8"},
    {"{\"center_input_sample\": 1}", "center_input_sample|1"},
    {"{\"class_embed_type\": \"simple_projection\"}", "class_embed_type|simple_projection|timestep"},
    {"{\"cross_attention_dim\": 768}", "cross_attention_dim|UNet2DModel"},
    {"{\"down_block_types\": [\"DownBlock2D\", \"SkipDownBlock2D\", \"DownBlock2D\", \"DownBlock2D\"]}",
     "down_block_types|SkipDownBlock2D|AttnDownBlock2D"},
    {"{\"down_block_types\": [\"DownBlock2D\"]}", "down_block_types has 1|block_out_channels 4"},
    {"{\"down_block_types\": []}", "down_block_types|empty"},
    {"{\"downsample_padding\": 2}", "downsample_padding|2"},
    {"{\"downsample_type\": \"fir\"}", "downsample_type|fir|conv, resnet"},
    {"{\"flip_sin_to_cos\": \"true\"}", "flip_sin_to_cos"},
    {"{\"freq_shift\": 4}", "freq_shift|4"},
    {"{\"freq_shift\": -1e300}", "freq_shift"},
    {"{\"in_channels\": 0}", "in_channels|0"},
    {"{\"in_channels\": 3.5}", "in_channels|3.5"},
    {"{\"layers_per_block\": 0}", "layers_per_block|0"},
    {"{\"layers_per_block\": 65}", "layers_per_block|65"},
    {"{\"layers_per_block\": 4000000000}", "layers_per_block|4000000000"},
    {"{\"mid_block_scale_factor\": 0}", "mid_block_scale_factor|0"},
    {"{\"mid_block_type\": 2}", "mid_block_type|2|string"},
    {"{\"norm_eps\": 0}", "norm_eps|0"},
    {"{\"norm_eps\": 1e-300}", "norm_eps"},
    {"{\"norm_eps\": \"1e-6\"}", "norm_eps"},
    {"{\"norm_num_groups\": 3}", "norm_num_groups 3|block_out_channels 8"},
    {"{\"norm_num_groups\": null}", "norm_num_groups|null"},
    {"{\"num_class_embeds\": 0}", "num_class_embeds|0"},
    {"{\"num_class_embeds\": -1}", "num_class_embeds|-1"},
    {"{\"out_channels\": 65537}", "out_channels|65537"},
    {"{\"quantization_config\": {}}", "quantization_config|quant_method"},
    {"{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}}", "quantization_config|bitsandbytes"},
    {"{\"resnet_time_scale_shift\": \"spatial\"}", "resnet_time_scale_shift|spatial|scale_shift"},
    {"{\"sample_size\": 0}", "sample_size|0"},
    {"{\"sample_size\": [32]}", "sample_size"},
    {"{\"sample_size\": [32, 32, 32]}", "sample_size"},
    {"{\"sample_size\": \"32\"}", "sample_size|32"},
    {"{\"time_embedding_dim\": -4}", "time_embedding_dim|-4"},
    {"{\"time_embedding_type\": \"fourier\"}", "time_embedding_type|fourier|positional"},
    {"{\"up_block_types\": [\"UpBlock2D\", \"UpBlock2D\", \"AttnUpBlock2D\", \"DownBlock2D\"]}",
     "up_block_types|DownBlock2D"},
    {"{\"upsample_type\": \"deconv\"}", "upsample_type|deconv"},
    {"{\"bottleneck\": 1}", "bottleneck"},
};

static void unsupported_values_are_named(void **state)
{
    (void)state;
    json_t *base = read_base("tests/goldens/unet/ddpm-cifar/config.json");
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        ht_unet2d_config config;
        json_t *object = patched(base, refusals[i].patch);
        if (ht_unet2d_config_read(object, "a/config.json", &config) == HT_OK)
            fail_msg("%s was accepted", refusals[i].patch);
        assert_message("a/config.json", refusals[i].patch);
        assert_message(refusals[i].words, refusals[i].patch);
        json_decref(object);
    }
    json_decref(base);
}

static const char *const harmless[] = {
    "{\"_comment\": \"x\", \"_name_or_path\": 7}",
    "{\"dropout\": 0.3}",
    "{\"num_train_timesteps\": 1000}",
    "{\"cross_attention_dim\": null}",
    "{\"act_fn\": \"swish\"}",
    "{\"sample_size\": null}",
    "{\"mid_block_type\": null}",
    "{\"mid_block_type\": \"UNetMidBlock2DCrossAttn\"}",
    "{\"time_embedding_dim\": 0}",
};

static void settings_of_training_and_null_are_ignored(void **state)
{
    (void)state;
    json_t *base = read_base("tests/goldens/unet/ddpm-cifar/config.json");
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) {
        ht_unet2d_config config;
        json_t *object = patched(base, harmless[i]);
        assert_ok(ht_unet2d_config_read(object, "config.json", &config));
        json_decref(object);
    }
    json_decref(base);
}

/* diffusers drops "UNetRes" from a block's name before it looks it up. */
static void names_of_blocks_with_the_old_prefix_mean_the_same(void **state)
{
    (void)state;
    ht_unet2d_config before, after;
    json_t *base = read_base("tests/goldens/unet/adm-scale-shift/config.json");
    json_t *object =
        patched(base, "{\"down_block_types\": [\"UNetResResnetDownsampleBlock2D\", \"UNetResAttnDownBlock2D\", "
                      "\"AttnDownBlock2D\"], \"up_block_types\": [\"AttnUpBlock2D\", "
                      "\"UNetResAttnUpBlock2D\", \"UNetResResnetUpsampleBlock2D\"]}");
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    assert_ok(ht_unet2d_config_read(base, "config.json", &before));
    assert_ok(ht_unet2d_config_read(object, "config.json", &after));
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(&after.down_block_types[i], &before.down_block_types[i], sizeof(ht_unet_block_type));
        assert_memory_equal(&after.up_block_types[i], &before.up_block_types[i], sizeof(ht_unet_block_type));
    }
    json_decref(object);
    json_decref(base);
}

static void an_empty_config_has_the_defaults_of_diffusers(void **state)
{
    (void)state;
    ht_unet2d_config c;
    json_t *object = json_object();
    assert_ok(ht_unet2d_config_read(object, "config.json", &c));
    assert_int_equal(c.levels, 4);
    assert_int_equal(c.block_out_channels[3], 896);
    assert_false(c.down_block_types[0].attention);
    assert_true(c.down_block_types[3].attention);
    assert_true(c.up_block_types[0].attention);
    assert_false(c.up_block_types[3].attention);
    assert_int_equal(c.attention_head_dim, 8);
    assert_int_equal(c.time_embedding_dim, 4 * 224);
    assert_int_equal(c.downsample_padding, 1);
    assert_int_equal(c.mid_attn_groups, 32);
    assert_true(c.flip_sin_to_cos && c.mid_block && c.add_attention);
    json_decref(object);
}

/* ---- the original DDPM configuration ---- */

typedef struct part_refusal {
    const char *part, *patch, *words; /* of which object of the configuration */
} part_refusal;

static const part_refusal ddpm_refusals[] = {
    {"model", "{\"type\": \"bayesian\"}", "type|bayesian"},
    {"model", "{\"resamp_with_conv\": false}", "resamp_with_conv|false"},
    {"model", "{\"ch_mult\": [1, 2, 65536]}", "ch 8|65536"},
    {"model", "{\"ch_mult\": [1, 0]}", "ch_mult|0"},
    {"model", "{\"num_res_blocks\": 1000}", "num_res_blocks|1000"},
    {"model", "{\"conditional\": true}", "conditional|`model`"},
    {"model", "{\"var_type\": \"nonsense\"}", "var_type|nonsense|fixedsmall, fixedlarge"},
    {"data", "{\"rescaled\": false}", "rescaled"},
    {"data", "{\"logit_transform\": true}", "logit_transform"},
    {"data", "{\"image_size\": null}", "image_size"},
    {"data", "{\"rescale\": false}", "rescale|`data`"},
    {"diffusion", "{\"beta_shedule\": \"quad\"}", "beta_shedule|`diffusion`"},
    {"diffusion", "{\"beta_schedule\": \"jsd\"}", "beta_schedule|jsd|quad"},
    {"diffusion", "{\"num_diffusion_timesteps\": 0}", "num_diffusion_timesteps|0"},
};

static void original_ddpm_values_are_named_too(void **state)
{
    (void)state;
    json_t *base = read_base("tests/goldens/ddim_original/cifar/config.json");
    for (size_t i = 0; i < sizeof ddpm_refusals / sizeof *ddpm_refusals; i++) {
        const part_refusal *r = &ddpm_refusals[i];
        json_t *object = json_deep_copy(base), *unet, *scheduler;
        json_object_set_new(object, r->part, patched(json_object_get(base, r->part), r->patch));
        if (ht_ddpm_translate(object, "b/config.json", &unet, &scheduler) == HT_OK)
            fail_msg("%s was accepted", r->patch);
        assert_message("b/config.json", r->patch);
        assert_message(r->words, r->patch);
        json_decref(object);
    }
    json_decref(base);
}

static const struct var_type {
    const char *patch, *name;
} var_types[] = {
    {"{\"var_type\": \"fixedlarge\"}", "fixed_large"},
    {"{\"var_type\": \"fixedsmall\"}", "fixed_small"},
    {"{\"var_type\": null}", "fixed_small"},
};

static void var_type_is_the_variance_of_ddpm(void **state)
{
    (void)state;
    json_t *base = read_base("tests/goldens/ddim_original/cifar/config.json");
    for (size_t i = 0; i < sizeof var_types / sizeof *var_types; i++) {
        json_t *object = json_deep_copy(base), *unet, *scheduler;
        json_object_set_new(object, "model", patched(json_object_get(base, "model"), var_types[i].patch));
        assert_ok(ht_ddpm_translate(object, "config.json", &unet, &scheduler));
        assert_string_equal(json_string_value(json_object_get(scheduler, "variance_type")), var_types[i].name);
        json_decref(scheduler);
        json_decref(unet);
        json_decref(object);
    }
    json_decref(base);
}

/* All keys of cifar10.yml, bedroom.yml and church.yml of the original code. */
static void keys_that_training_reads_are_no_error(void **state)
{
    (void)state;
    json_t *base = read_base("tests/goldens/ddim_original/cifar/config.json"), *unet, *scheduler;
    json_object_set_new(base, "data",
                        patched(json_object_get(base, "data"),
                                "{\"dataset\": \"LSUN\", \"category\": \"bedroom\", \"logit_transform\": false, "
                                "\"uniform_dequantization\": false, \"gaussian_dequantization\": false, "
                                "\"random_flip\": true, \"rescaled\": true, \"num_workers\": 4}"));
    assert_ok(ht_ddpm_translate(base, "config.json", &unet, &scheduler));
    json_decref(scheduler);
    json_decref(unet);
    json_decref(base);
}

static void dialects_are_translated(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"down.1.block.0.nin_shortcut.weight", "down_blocks.1.resnets.0.conv_shortcut.weight"},
        {"down.0.downsample.conv.bias", "down_blocks.0.downsamplers.0.conv.bias"},
        {"up.0.block.2.temb_proj.weight", "up_blocks.3.resnets.2.time_emb_proj.weight"},
        {"up.3.upsample.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
        {"up.2.attn.1.proj_out.bias", "up_blocks.1.attentions.1.to_out.0.bias"},
        {"mid.attn_1.norm.weight", "mid_block.attentions.0.group_norm.weight"},
        {"mid.block_2.norm2.weight", "mid_block.resnets.1.norm2.weight"},
        {"temb.dense.1.weight", "time_embedding.linear_2.weight"},
        {"norm_out.bias", "conv_norm_out.bias"},
        {"conv_in.weight", "conv_in.weight"},
        {"down.0.strange.1.weight", "down.0.strange.1.weight"},
    };
    const int levels = 4;
    ht_arena *arena = ht_arena_create();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_string_equal(ht_ddpm_rename(arena, names[i][0], &levels), names[i][1]);
    assert_string_equal(ht_unet2d_rename(arena, "mid_block.attentions.0.proj_attn.weight", NULL),
                        "mid_block.attentions.0.to_out.0.weight");
    assert_string_equal(ht_unet2d_rename(arena, "up_blocks.0.attentions.1.query.bias", NULL),
                        "up_blocks.0.attentions.1.to_q.bias");
    assert_string_equal(ht_unet2d_rename(arena, "conv_in.bias", NULL), "conv_in.bias");
    ht_arena_free(arena);
}

/* ---- whole folders ---- */

#define CIFAR   "tests/goldens/unet/ddpm-cifar"
#define WEIGHTS "diffusion_pytorch_model.safetensors"

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

static void copy(const char *from, const char *name)
{
    ht_mapping file;
    assert_ok(ht_map_file(from, &file));
    put_file(name, file.data, file.size);
    ht_unmap_file(&file);
}

static void put_config(const char *patch)
{
    json_t *base = read_base(CIFAR "/config.json"), *object = patched(base, patch);
    assert_int_equal(json_dump_file(object, in_folder("config.json"), 0), 0);
    json_decref(object);
    json_decref(base);
}

static void assert_folder_refused(const char *component, ht_status status, const char *words)
{
    ht_model *m = NULL;
    ht_status found = ht_model_open(folder, component, &m);
    if (found == HT_OK)
        fail_msg("the folder was accepted; wanted an error with %s", words);
    assert_null(m);
    assert_message(words, folder);
    assert_int_equal(found, status);
}

static void assert_opens(const char *component)
{
    ht_model *m;
    assert_ok(ht_model_open(folder, component, &m));
    ht_model_close(m);
}

/* What config.json says about tensors that the file of ddpm-cifar does not have. */
static const refusal misfits[] = {
    {"{\"in_channels\": 4}", "conv_in.weight is [8,3,3,3]|asks for [8,4,3,3]"},
    {"{\"out_channels\": 6}", "conv_out.weight is [3,8,3,3]|asks for [6,8,3,3]"},
    {"{\"block_out_channels\": [8, 8, 8, 16]}",
     "down_blocks.3.resnets.0.conv1.weight is [8,8,3,3]|asks for [16,8,3,3]"},
    {"{\"time_embedding_dim\": 64}", "time_embedding.linear_1.weight is [32,8]|asks for [64,8]"},
    {"{\"resnet_time_scale_shift\": \"scale_shift\"}", "time_emb_proj.weight is [8,32]|asks for [16,32]"},
    {"{\"layers_per_block\": 3}", "down_blocks.0.resnets.2.norm1.weight is missing"},
    {"{\"layers_per_block\": 1}", "no place for down_blocks.0.resnets.1."},
    {"{\"mid_block_type\": null}", "no place for mid_block."},
    {"{\"add_attention\": false}", "no place for mid_block.attentions.0."},
    {"{\"num_class_embeds\": 10}", "class_embedding.weight is missing"},
    {"{\"attention_head_dim\": 3}", "to_q.weight is [8,8]|asks for [6,8]"},
};

static void weights_that_do_not_fit_are_named(void **state)
{
    (void)state;
    copy(CIFAR "/" WEIGHTS, WEIGHTS);
    for (size_t i = 0; i < sizeof misfits / sizeof *misfits; i++) {
        put_config(misfits[i].patch);
        assert_folder_refused(NULL, HT_ERR_SHAPE, misfits[i].words);
        assert_message(WEIGHTS, misfits[i].patch);
    }
    put_config("{}");
    assert_opens(NULL);
}

static void a_misfit_of_the_original_names_says_both(void **state)
{
    (void)state;
    copy("tests/goldens/ddim_original/cifar/model.safetensors", "model.safetensors");
    put_text("config.json",
             "{\"model\": {\"ch\": 8, \"ch_mult\": [1, 2, 2], \"num_res_blocks\": 1, \"attn_resolutions\": [8], "
             "\"num_groups\": 4, \"out_ch\": 6}, \"data\": {\"image_size\": 16}}");
    assert_folder_refused(NULL, HT_ERR_SHAPE, "conv_out.weight is [3,8,3,3]|asks for [6,8,3,3]");
    put_text("config.json",
             "{\"model\": {\"ch\": 8, \"ch_mult\": [1, 2, 2], \"num_res_blocks\": 1, \"attn_resolutions\": [16, 8], "
             "\"num_groups\": 4}, \"data\": {\"image_size\": 16}}");
    assert_folder_refused(NULL, HT_ERR_SHAPE, "down_blocks.0.attentions.0.group_norm.weight is missing");
    put_text("config.json",
             "{\"model\": {\"ch\": 8, \"ch_mult\": [1, 2, 4], \"num_res_blocks\": 1, \"attn_resolutions\": [8], "
             "\"num_groups\": 4}, \"data\": {\"image_size\": 16}}");
    assert_folder_refused(NULL, HT_ERR_SHAPE,
                          "down_blocks.2.resnets.0.conv1.weight|down.2.block.0.conv1.weight in the file");
}

static void integer_weights_are_refused(void **state)
{
    (void)state;
    ht_safetensors *file;
    ht_tensor tensors[512];
    static int8_t codes[8 * 3 * 3 * 3];
    assert_ok(ht_safetensors_open(CIFAR "/" WEIGHTS, &file));
    size_t n = ht_safetensors_count(file);
    assert_true(n <= 512);
    for (size_t i = 0; i < n; i++) {
        tensors[i] = *ht_safetensors_at(file, i);
        if (!strcmp(tensors[i].name, "conv_in.weight")) {
            tensors[i].dtype = HT_I8;
            tensors[i].data = codes;
            tensors[i].bytes = sizeof codes;
        }
    }
    assert_ok(ht_safetensors_write(in_folder(WEIGHTS), tensors, n, NULL, 0));
    ht_safetensors_close(file);
    put_config("{}");
    assert_folder_refused(NULL, HT_ERR_UNSUPPORTED, "conv_in.weight|I8");
}

static void folders_without_what_is_needed_say_so(void **state)
{
    (void)state;
    assert_folder_refused(NULL, HT_ERR_IO, "no config.json");
    assert_folder_refused("unet", HT_ERR_IO, "unet: no config.json");
    put_config("{}");
    assert_folder_refused(NULL, HT_ERR_IO, "no weights|" WEIGHTS);
    put_text("pytorch_model.bin", "pickle");
    assert_folder_refused(NULL, HT_ERR_UNSUPPORTED, "pytorch_model.bin|convert|" WEIGHTS);
    put_text("config.json", "{\"sample_size\": 32}");
    assert_folder_refused(NULL, HT_ERR_FORMAT, "_class_name");
    put_text("config.json", "{\"_class_name\": \"UNet3DModel\"}");
    assert_folder_refused(NULL, HT_ERR_UNSUPPORTED, "UNet3DModel|UNet2DModel");
    put_text("config.json", "{\"_class_name\": ");
    assert_folder_refused(NULL, HT_ERR_FORMAT, "config.json");
}

static void paths_that_are_no_folders_are_refused(void **state)
{
    (void)state;
    ht_model *m;
    assert_int_equal(ht_model_open("no/such/model", NULL, &m), HT_ERR_IO);
    assert_message("no/such/model", "a missing folder");
    assert_int_equal(ht_model_open(CIFAR "/" WEIGHTS, NULL, &m), HT_ERR_UNSUPPORTED);
    assert_message("folder", "a file");
    assert_int_equal(ht_model_open("", NULL, &m), HT_ERR_ARGUMENT);
    assert_int_equal(ht_model_open(NULL, NULL, &m), HT_ERR_ARGUMENT);
    ht_model_close(NULL);
}

/* The layout of google/ddpm-cifar10-32: everything beside model_index.json. */
static void flat_pipelines_open(void **state)
{
    (void)state;
    ht_model *m;
    ht_model_info info;
    put_config("{}");
    copy(CIFAR "/" WEIGHTS, "diffusion_pytorch_model.fp16.safetensors");
    put_text("model_index.json",
             "{\"_class_name\": \"DDPMPipeline\", \"scheduler\": [\"diffusers\", \"DDPMScheduler\"], "
             "\"unet\": [\"diffusers\", \"UNet2DModel\"]}");
    assert_folder_refused(NULL, HT_ERR_IO, "scheduler_config.json");
    put_text("scheduler_config.json", "{\"_class_name\": \"DDPMScheduler\"}");
    assert_ok(ht_model_open(folder, NULL, &m));
    ht_model_get_info(m, &info);
    assert_string_equal(info.scheduler, "DDPMScheduler");
    ht_model_close(m);
    assert_opens("unet");
    assert_folder_refused("text_encoder", HT_ERR_ARGUMENT, "text_encoder");
}

static void pipelines_without_a_known_denoiser_are_refused(void **state)
{
    (void)state;
    put_text("model_index.json",
             "{\"_class_name\": \"P\", \"vae\": [\"diffusers\", \"AutoencoderKL\"], \"unet\": [null, null]}");
    assert_folder_refused(NULL, HT_ERR_UNSUPPORTED, "no denoiser");
    assert_int_equal(mkdir(in_folder("vae"), 0700), 0);
    put_text("vae/config.json", "{\"_class_name\": \"ConsistencyDecoderVAE\"}");
    assert_folder_refused("vae", HT_ERR_UNSUPPORTED, "vae/config.json|ConsistencyDecoderVAE|UNet2DModel");
    assert_int_equal(unlink(in_folder("vae/config.json")) | rmdir(in_folder("vae")), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsupported_values_are_named),
        cmocka_unit_test(settings_of_training_and_null_are_ignored),
        cmocka_unit_test(names_of_blocks_with_the_old_prefix_mean_the_same),
        cmocka_unit_test(an_empty_config_has_the_defaults_of_diffusers),
        cmocka_unit_test(original_ddpm_values_are_named_too),
        cmocka_unit_test(var_type_is_the_variance_of_ddpm),
        cmocka_unit_test(keys_that_training_reads_are_no_error),
        cmocka_unit_test(dialects_are_translated),
        IN_FOLDER(weights_that_do_not_fit_are_named),
        IN_FOLDER(a_misfit_of_the_original_names_says_both),
        IN_FOLDER(integer_weights_are_refused),
        IN_FOLDER(folders_without_what_is_needed_say_so),
        cmocka_unit_test(paths_that_are_no_folders_are_refused),
        IN_FOLDER(flat_pipelines_open),
        IN_FOLDER(pipelines_without_a_known_denoiser_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
