/* pipeline.c - opening a pipeline: the denoiser, and around it text encoders and the autoencoder.
 *
 * Trap: a U-Net for inpainting has the channels of the mask and of the masked picture after those of the sample, so
 * the sample's are the autoencoder's. */
#include "sampler/pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/image_decode.h"
#include "eval/resize.h"

static ht_status open_autoencoder(ht_pipeline *p, const char *path)
{
    const ht_denoiser_info *d = &p->denoiser->info;
    const ht_autoencoder_info *a;
    if (!p->denoiser->decoder) {
        p->factor = 1;
        p->channels = p->latent_channels = d->in_channels;
        return HT_OK;
    }
    ht_status status = ht_model_open(path, p->denoiser->decoder, &p->autoencoder);
    if (status) /* of a folder: a file says which component itself */
        return p->denoiser->index ? ht_fail_in(status, "the pipeline's %s", p->denoiser->decoder) : status;
    if (!p->autoencoder->autoencoder)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: its %s is no autoencoder", path, p->denoiser->decoder);
    a = &p->autoencoder->coding;
    p->factor = a->factor;
    p->channels = a->out_channels;
    p->latent_channels = a->latent_channels;
    if (d->in_channels != a->latent_channels && d->in_channels != 2 * a->latent_channels + 1)
        return ht_fail(HT_ERR_SHAPE, "%s: the denoiser takes %d channels, the autoencoder decodes %d", path,
                       d->in_channels, a->latent_channels);
    return HT_OK;
}

static ht_status check_side(const ht_pipeline *p, const char *what, int value, int own, int *out)
{
    int side = value ? value : own * p->factor;
    if (!side)
        return ht_fail(HT_ERR_ARGUMENT, "config.json has no sample_size; say which height and width the sample has");
    if (side < 1 || side > 16384 || side % p->factor)
        return ht_fail(HT_ERR_ARGUMENT, "%s %d does not fit this model; wanted a multiple of %d up to 16384", what,
                       side, p->factor);
    *out = side / p->factor;
    return HT_OK;
}

static ht_status open_rest(ht_pipeline *p, const char *path)
{
    ht_status status = open_autoencoder(p, path);
    if (!status)
        status = check_side(p, "height", p->options.height, p->denoiser->info.height, &p->h);
    if (!status)
        status = check_side(p, "width", p->options.width, p->denoiser->info.width, &p->w);
    if (!status)
        status = ht_texts_open(p->denoiser, &p->texts);
    if (!status && p->autoencoder)
        status = ht_latents_open(p->autoencoder, &p->options, p->h, p->w, &p->latents);
    if (!status && !p->denoiser->info.cross_attention_dim)
        status = ht_pipeline_need_session(p, 0, p->options.batch ? p->options.batch : 1, -1);
    return status;
}

ht_status ht_pipeline_open(const char *path, const ht_session_options *options, ht_pipeline **pipeline)
{
    ht_pipeline *p = calloc(1, sizeof *p);
    if (!p)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a pipeline");
    if (options)
        p->options = *options;
    ht_status status = HT_OK;
    if (p->options.batch < 0 || p->options.batch > 4096)
        status = ht_fail(HT_ERR_ARGUMENT, "batch %d is out of range; wanted 1 to 4096", p->options.batch);
    if (!status)
        status = ht_model_open(path, NULL, &p->denoiser);
    if (!status && !p->denoiser->family)
        status = ht_fail(HT_ERR_UNSUPPORTED, "%s: is an autoencoder, %s; a denoiser is wanted", path,
                         p->denoiser->class_name);
    if (!status)
        status = open_rest(p, path);
    if (status)
        ht_pipeline_close(p);
    else
        *pipeline = p;
    return status;
}

void ht_pipeline_close(ht_pipeline *p)
{
    if (!p)
        return;
    ht_session_close(p->shallow);
    ht_session_close(p->session);
    ht_latents_close(p->latents);
    ht_texts_close(p->texts);
    ht_model_close(p->autoencoder);
    ht_model_close(p->denoiser);
    free(p);
}

ht_status ht_pipeline_need_session(ht_pipeline *p, int tokens, int batch, int branch)
{
    ht_session_options o = p->options;
    if (p->session && p->tokens == tokens && p->batch == batch && p->branch == branch)
        return HT_OK;
    ht_session_close(p->shallow);
    ht_session_close(p->session);
    p->session = p->shallow = NULL;
    o.height = p->h;
    o.width = p->w;
    o.tokens = tokens;
    o.batch = batch;
    p->tokens = tokens;
    p->batch = batch;
    p->branch = branch;
    if (branch < 0)
        return ht_session_open(p->denoiser, &o, &p->session);
    ht_session_extras keeps = {.depth = HT_DEPTH_KEEPS, .branch = branch};
    ht_session_extras shallow = {.depth = HT_DEPTH_SHALLOW, .branch = branch};
    ht_status status = ht_session_open_with(p->denoiser, &o, &keeps, &p->session);
    return status ? status : ht_session_open_with(p->denoiser, &o, &shallow, &p->shallow);
}

double ht_pipeline_guidance(const ht_pipeline *p)
{
    static const double of_prompts = 7.5, of_classes = 4;
    return p->texts ? of_prompts : p->denoiser->info.null_class ? of_classes : 1;
}

void ht_pipeline_get_info(const ht_pipeline *p, ht_pipeline_info *info)
{
    const ht_denoiser_info *d = &p->denoiser->info;
    *info = (ht_pipeline_info){.height = p->h * p->factor,
                               .width = p->w * p->factor,
                               .channels = p->channels,
                               .factor = p->factor,
                               .takes_prompt = d->cross_attention_dim > 0,
                               .takes_mask = d->in_channels > p->latent_channels,
                               .guidance = ht_pipeline_guidance(p),
                               .distilled = d->timestep_cond_dim > 0};
    ht_model_get_info(p->denoiser, &info->model);
    if (p->session)
        ht_session_get_info(p->session, &info->session);
}

ht_status ht_pipeline_check_prompt(const ht_pipeline *p, const char *prompt, int plain)
{
    const char *const text[HT_TEXT_ENCODERS] = {prompt};
    ht_text read;
    if (!p->texts)
        return ht_fail(HT_ERR_ARGUMENT, "%s: takes no prompt", p->denoiser->path);
    ht_status status = ht_text_read(p->texts, text, plain, &read);
    if (!status)
        ht_text_free(&read);
    return status;
}

ht_status ht_picture_read(const char *path, int height, int width, float *out)
{
    ht_mapping file;
    ht_pixels pixels = {0};
    ht_status status = ht_map_file(path, &file);
    if (status)
        return status;
    status = ht_image_decode(file.data, file.size, path, &pixels);
    if (!status)
        status = ht_resize_pixels(pixels.height == height && pixels.width == width ? HT_RESIZE_NONE : HT_RESIZE_BICUBIC,
                                  &pixels, height, width, out);
    for (size_t i = 0; !status && i < (size_t)height * (size_t)width * 3; i++)
        out[i] = out[i] / 255 * 2 - 1;
    free(pixels.data);
    ht_unmap_file(&file);
    return status;
}
