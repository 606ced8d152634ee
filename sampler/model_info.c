/* model_info.c - what a model says of itself. */
#include <string.h>

#include "quant/file.h"
#include "sampler/model.h"
#include "sampler/trajectory.h"

void ht_model_get_layer(const ht_model *model, int i, ht_layer_info *info)
{
    const ht_layer *layer = &model->layers.layer[i];
    bool codes = layer->mode != HT_INPUT_FLOAT;
    *info = (ht_layer_info){.name = layer->name,
                            .format = layer->format.name,
                            .input = codes ? layer->input.name : "float",
                            .input_mode = ht_input_mode_name(layer->mode),
                            .groups = layer->mode == HT_INPUT_STATIC ? layer->part[0].input.groups : 0,
                            .parts = layer->parts,
                            .smooth = layer->part[0].smooth != NULL,
                            .rank = layer->rank,
                            .weights = ht_layer_outputs(layer) * ht_layer_inputs(layer) * ht_layer_taps(layer),
                            .bits = ht_layer_bits(layer),
                            .weight_bits = layer->format.grid.bits,
                            .input_bits = codes ? layer->input.grid.bits : 32,
                            .error = layer->error};
}

static bool is_weight(const char *name)
{
    const char *leaf = strrchr(name, '.');
    return leaf && !strcmp(leaf, ".weight");
}

/* Over what multiplies: weights of two dimensions and more. */
static double average_bits(const ht_model *model)
{
    double bits = 0, weights = 0;
    for (size_t i = 0; i < ht_weights_count(model->weights); i++) {
        const ht_tensor *t = ht_weights_at(model->weights, i);
        const ht_layer *layer = ht_layers_of_weight(&model->layers, t->name);
        if (t->ndim < 2 || (!layer && !is_weight(t->name)))
            continue;
        bits += (double)t->count * (layer ? ht_layer_bits(layer) : ht_dtype_bits(t->dtype));
        weights += (double)t->count;
    }
    return weights > 0 ? bits / weights : 0;
}

void ht_model_get_info(const ht_model *model, ht_model_info *info)
{
    const ht_denoiser_info *d = &model->info;
    const ht_autoencoder_info *a = &model->coding;
    *info = (ht_model_info){.class_name = model->class_name,
                            .scheduler = model->has_scheduler ? model->schedule.class_name : NULL,
                            .sampler = ht_sampler_for(model->schedule.class_name),
                            .spacing = ht_spacing_name((int)model->schedule.timestep_spacing),
                            .decoder = model->decoder,
                            .in_channels = model->family ? d->in_channels : a->in_channels,
                            .out_channels = model->family ? d->out_channels : a->out_channels,
                            .height = model->family ? d->height : a->height,
                            .width = model->family ? d->width : a->width,
                            .takes_class = d->num_classes > 0 || d->class_timestep,
                            .num_classes = d->num_classes,
                            .class_embed_dim = d->class_embed_dim,
                            .cross_attention_dim = d->cross_attention_dim,
                            .text_embed_dim = d->text_embed_dim,
                            .time_ids = d->time_ids,
                            .timestep_cond_dim = d->timestep_cond_dim,
                            .has_null_class = d->null_class,
                            .attention_mask = d->attention_mask,
                            .resolution = d->resolution,
                            .aspect_ratio = d->aspect_ratio,
                            .parameters = ht_weights_parameters(model->weights),
                            .weight_bytes = ht_weights_bytes(model->weights),
                            .layers = model->layers.n,
                            .average_bits = average_bits(model),
                            .softmax = ht_softmax_name((int)model->layers.softmax)};
}
