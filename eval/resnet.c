/* resnet.c - the residual network for small images (He et al., arXiv:1512.03385, with the plain 3x3 stem that is usual
 * for CIFAR-10): mean over positions of its last layer, before the classifier.
 *
 * Traps:
 * - BatchNorm is folded into the weights: every convolution has a bias.
 * - There is no pooling after the stem; the first layer keeps the size, each later one halves it in its first block.
 * - A shortcut has a convolution (`downsample.0`) where channels or size change. */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "eval/network.h"

enum { SIDE = 32, COLOURS = 3, MAX_LAYERS = 8, MAX_BLOCKS = 64, MAX_CHANNELS = 1 << 14, MAX_SIDE = 1024 };

typedef struct basic_block {
    int stride;
    bool has_downsample;
    ht_conv_weights conv1, conv2, downsample;
} basic_block;

typedef struct resnet {
    int height, width; /* of its images */
    int layers, channels[MAX_LAYERS], blocks[MAX_LAYERS], classes;
    double mean[COLOURS], std[COLOURS];
    ht_conv_weights conv1;
    basic_block *layer[MAX_LAYERS]; /* [blocks] */
    ht_linear_weights fc;           /* the classifier */
    ht_network_output output[2];
} resnet;

/* ---- configuration ---- */

static ht_status check_config(const char *where, const resnet *m, int block_layers, int feature_dim)
{
    if (m->layers < 1 || block_layers != m->layers)
        return ht_fail(HT_ERR_FORMAT, "%s: channels has %d entries, blocks %d; wanted one each a layer", where,
                       m->layers, block_layers);
    if (feature_dim != m->channels[m->layers - 1])
        return ht_fail(HT_ERR_FORMAT, "%s: feature_dim is %d, the last layer has %d channels", where, feature_dim,
                       m->channels[m->layers - 1]);
    for (int i = 0; i < COLOURS; i++)
        if (!(m->std[i] > 0))
            return ht_fail(HT_ERR_FORMAT, "%s: std[%d] is %g; wanted three numbers above 0", where, i, m->std[i]);
    return HT_OK;
}

/* "input" says it in words, "..., NCHW 64x64"; without it the images are CIFAR's. */
static ht_status read_size(ht_json *j, resnet *m)
{
    const char *input = ht_json_string(j, "input", ""), *nchw = input ? strstr(input, "NCHW ") : NULL;
    m->height = m->width = SIDE;
    if (nchw && (sscanf(nchw, "NCHW %5dx%5d", &m->height, &m->width) != 2 || m->height < 1 || m->height > MAX_SIDE ||
                 m->width < 1 || m->width > MAX_SIDE))
        return ht_fail(HT_ERR_FORMAT, "%s: input is \"%s\"; wanted NCHW and sides of 1 to %d", j->where, input,
                       MAX_SIDE);
    return j->status;
}

/* The keys that only say in words what the architecture is (stem, batch_norm, feature, ...) are for people. */
static ht_status read_config(const json_t *config, const char *where, resnet *m)
{
    ht_json j = {.object = config, .where = where};
    m->layers = ht_json_ints(&j, "channels", m->channels, MAX_LAYERS, 1, MAX_CHANNELS);
    int block_layers = ht_json_ints(&j, "blocks", m->blocks, MAX_LAYERS, 1, MAX_BLOCKS);
    int feature_dim = ht_json_int(&j, "feature_dim", 0, 1, MAX_CHANNELS);
    m->classes = ht_json_int(&j, "classes", 10, 1, 1 << 20);
    ht_status status = read_size(&j, m);
    if (status)
        return status;
    int colours = ht_json_reals(&j, "mean", m->mean, COLOURS);
    if (ht_json_reals(&j, "std", m->std, COLOURS) != COLOURS || colours != COLOURS)
        return j.status ? j.status : ht_fail(HT_ERR_FORMAT, "%s: mean and std must have three numbers each", where);
    return j.status ? j.status : check_config(where, m, block_layers, feature_dim);
}

/* ---- binding ---- */

static void bind_block(ht_weights *w, basic_block *b, int layer, int index, const int channels[2])
{
    int in = channels[0], out = channels[1];
    b->stride = layer && !index ? 2 : 1;
    b->has_downsample = b->stride != 1 || in != out;
    ht_bind_conv(w, &b->conv1, in, out, 3, true, "layer%d.%d.conv1", layer + 1, index);
    ht_bind_conv(w, &b->conv2, out, out, 3, true, "layer%d.%d.conv2", layer + 1, index);
    if (b->has_downsample)
        ht_bind_conv(w, &b->downsample, in, out, 1, true, "layer%d.%d.downsample.0", layer + 1, index);
}

static ht_status resnet_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights,
                             void **model)
{
    resnet *m = ht_alloc(arena, sizeof *m);
    if (m && !config)
        return ht_fail(HT_ERR_FORMAT, "%s: has no config.json beside it", where);
    ht_status status = m ? read_config(config, where, m) : HT_ERR_MEMORY;
    if (status)
        return status;
    int in = m->channels[0];
    ht_bind_conv(weights, &m->conv1, COLOURS, in, 3, true, "conv1");
    for (int i = 0; i < m->layers; i++) {
        if (!(m->layer[i] = ht_alloc_array(arena, (size_t)m->blocks[i], sizeof *m->layer[i])))
            return HT_ERR_MEMORY;
        for (int j = 0; j < m->blocks[i]; j++) {
            bind_block(weights, &m->layer[i][j], i, j, (const int[]){in, m->channels[i]});
            in = m->channels[i];
        }
    }
    ht_bind_linear(weights, &m->fc, in, m->classes, true, "fc");
    m->output[0] = (ht_network_output){ht_sprintf(arena, "%d", in), in};
    m->output[1] = (ht_network_output){"logits", m->classes};
    if (!m->output[0].name)
        return HT_ERR_MEMORY;
    if (!(status = ht_weights_finish(weights)))
        *model = m;
    return status;
}

static void resnet_info(const void *model, ht_network_info *info)
{
    const resnet *m = model;
    *info = (ht_network_info){.height = m->height,
                              .width = m->width,
                              .outputs = 2,
                              .use = {0, 1, -1},
                              .output = {m->output[0], m->output[1]}};
    for (int i = 0; i < COLOURS; i++) {
        info->mean[i] = m->mean[i];
        info->std[i] = m->std[i];
    }
}

/* ---- the network ---- */

static ht_conv_shape same_padding(int stride)
{
    return (ht_conv_shape){.stride = stride, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
}

/* Basic block: conv-ReLU-conv, + shortcut, ReLU.   x [n,h,w,c] -> [n,h/s,w/s,c'] */
static ht_value *basic_block_of(ht_graph *g, const basic_block *b, ht_value *x)
{
    ht_value *h = ht_relu(g, ht_conv2d(g, x, &b->conv1, same_padding(b->stride)));
    h = ht_conv2d(g, h, &b->conv2, same_padding(1));
    if (b->has_downsample)
        x = ht_conv2d(g, x, &b->downsample, (ht_conv_shape){.stride = b->stride});
    return ht_relu(g, ht_add(g, x, h));
}

static void resnet_build(const void *model, ht_graph *g, int64_t n, unsigned wanted, ht_value **made)
{
    const resnet *m = model;
    (void)wanted; /* what nobody reads is dropped with the graph's finish */
    ht_value *x = ht_input(g, "images", 4, (const int64_t[]){n, m->height, m->width, COLOURS}, HT_DEPENDS_X);
    x = ht_relu(g, ht_conv2d(g, x, &m->conv1, same_padding(1)));
    for (int i = 0; i < m->layers; i++)
        for (int j = 0; j < m->blocks[i]; j++)
            x = basic_block_of(g, &m->layer[i][j], x);
    made[0] = ht_mean(g, x);
    made[1] = ht_linear(g, made[0], &m->fc);
}

const ht_network ht_resnet_cifar = {"resnet18-cifar", NULL, NULL, resnet_open, resnet_info, resnet_build};
