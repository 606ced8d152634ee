/* inception.c - InceptionV3 (Szegedy et al., arXiv:1512.00567) as FID uses it: the network of TensorFlow's
 * inception-2015-12-05, in the names and with the blocks of pytorch-fid.
 *
 * Traps:
 * - Means of 3 x 3 windows count what is inside the image alone; torchvision's count the padding as zeros.
 * - The pool of the last block, Mixed_7c, is a maximum.
 * - 1008 classes.  BatchNorm's eps is 0.001; it is folded into the convolutions here, in double.
 * - sFID (Nash et al., arXiv:2103.03841) is of the first 7 channels of mixed_6/conv, Mixed_6d.branch1x1 here. */
#include <math.h>
#include <string.h>

#include "eval/network.h"

enum { SIDE = 299, COLOURS = 3, CLASSES = 1008, DIM = 2048, SPATIAL_SIDE = 17, SPATIAL_CHANNELS = 7 };
static const double BN_EPS = 0.001;

/* ---- the layers ---- */

/* What begins a checkpoint's names, and the shape of the kernel. */
typedef struct layer {
    const char *name;
    int in, out, kernel_height, kernel_width, stride, pad_y, pad_x;
} layer;

#define SQUARE(name, in, out, k, stride, pad)                                                                          \
    {                                                                                                                  \
        name, in, out, k, k, stride, pad, pad                                                                          \
    }
#define POINT(name, in, out)                                                                                           \
    {                                                                                                                  \
        name, in, out, 1, 1, 1, 0, 0                                                                                   \
    }
#define WIDE(name, in, out, k)                                                                                         \
    {                                                                                                                  \
        name, in, out, 1, k, 1, 0, (k) / 2                                                                             \
    }
#define TALL(name, in, out, k)                                                                                         \
    {                                                                                                                  \
        name, in, out, k, 1, 1, (k) / 2, 0                                                                             \
    }
#define BLOCK_A(name, in, pool)                                                                                        \
    POINT(name ".branch1x1", in, 64), POINT(name ".branch5x5_1", in, 48),                                              \
        SQUARE(name ".branch5x5_2", 48, 64, 5, 1, 2), POINT(name ".branch3x3dbl_1", in, 64),                           \
        SQUARE(name ".branch3x3dbl_2", 64, 96, 3, 1, 1), SQUARE(name ".branch3x3dbl_3", 96, 96, 3, 1, 1),              \
        POINT(name ".branch_pool", in, pool)
#define BLOCK_C(name, c)                                                                                               \
    POINT(name ".branch1x1", 768, 192), POINT(name ".branch7x7_1", 768, c), WIDE(name ".branch7x7_2", c, c, 7),        \
        TALL(name ".branch7x7_3", c, 192, 7), POINT(name ".branch7x7dbl_1", 768, c),                                   \
        TALL(name ".branch7x7dbl_2", c, c, 7), WIDE(name ".branch7x7dbl_3", c, c, 7),                                  \
        TALL(name ".branch7x7dbl_4", c, c, 7), WIDE(name ".branch7x7dbl_5", c, 192, 7),                                \
        POINT(name ".branch_pool", 768, 192)
#define BLOCK_E(name, in)                                                                                              \
    POINT(name ".branch1x1", in, 320), POINT(name ".branch3x3_1", in, 384), WIDE(name ".branch3x3_2a", 384, 384, 3),   \
        TALL(name ".branch3x3_2b", 384, 384, 3), POINT(name ".branch3x3dbl_1", in, 448),                               \
        SQUARE(name ".branch3x3dbl_2", 448, 384, 3, 1, 1), WIDE(name ".branch3x3dbl_3a", 384, 384, 3),                 \
        TALL(name ".branch3x3dbl_3b", 384, 384, 3), POINT(name ".branch_pool", in, 192)

/* In the order in which the blocks below take them. */
static const layer layers[] = {
    SQUARE("Conv2d_1a_3x3", COLOURS, 32, 3, 2, 0),
    SQUARE("Conv2d_2a_3x3", 32, 32, 3, 1, 0),
    SQUARE("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
    POINT("Conv2d_3b_1x1", 64, 80),
    SQUARE("Conv2d_4a_3x3", 80, 192, 3, 1, 0),
    BLOCK_A("Mixed_5b", 192, 32),
    BLOCK_A("Mixed_5c", 256, 64),
    BLOCK_A("Mixed_5d", 288, 64),
    SQUARE("Mixed_6a.branch3x3", 288, 384, 3, 2, 0),
    POINT("Mixed_6a.branch3x3dbl_1", 288, 64),
    SQUARE("Mixed_6a.branch3x3dbl_2", 64, 96, 3, 1, 1),
    SQUARE("Mixed_6a.branch3x3dbl_3", 96, 96, 3, 2, 0),
    BLOCK_C("Mixed_6b", 128),
    BLOCK_C("Mixed_6c", 160),
    BLOCK_C("Mixed_6d", 160),
    BLOCK_C("Mixed_6e", 192),
    POINT("Mixed_7a.branch3x3_1", 768, 192),
    SQUARE("Mixed_7a.branch3x3_2", 192, 320, 3, 2, 0),
    POINT("Mixed_7a.branch7x7x3_1", 768, 192),
    WIDE("Mixed_7a.branch7x7x3_2", 192, 192, 7),
    TALL("Mixed_7a.branch7x7x3_3", 192, 192, 7),
    SQUARE("Mixed_7a.branch7x7x3_4", 192, 192, 3, 2, 0),
    BLOCK_E("Mixed_7b", 1280),
    BLOCK_E("Mixed_7c", 2048),
};

enum { LAYERS = sizeof layers / sizeof *layers };

typedef struct inception {
    ht_conv_weights conv[LAYERS];
    ht_linear_weights fc;
} inception;

/* ---- binding ---- */

/* Training's counters, and the classifier that training has beside the middle of the network. */
static const char *rename_inception(ht_arena *arena, const char *name, const void *context)
{
    static const char counter[] = ".num_batches_tracked";
    size_t n = strlen(name), m = sizeof counter - 1;
    (void)arena;
    (void)context;
    return (n > m && !strcmp(name + n - m, counter)) || !strncmp(name, "AuxLogits.", 10) ? NULL : name;
}

static ht_status new_tensor(ht_arena *arena, const ht_tensor *like, int ndim, const char *name, ht_tensor **out,
                            float **data)
{
    ht_tensor *t = ht_alloc(arena, sizeof *t);
    size_t count = ndim == 1 ? (size_t)like->shape[0] : like->count;
    *data = ht_alloc_array(arena, count, sizeof **data);
    if (!t || !*data || !name)
        return HT_ERR_MEMORY;
    *t = (ht_tensor){
        .name = name, .dtype = HT_F32, .ndim = ndim, .data = *data, .count = count, .bytes = count * sizeof **data};
    memcpy(t->shape, like->shape, sizeof t->shape);
    *out = t;
    return HT_OK;
}

static double number(const ht_tensor *t, size_t i)
{
    float x;
    ht_convert_to_f32(t->dtype, t->data, i, 1, &x);
    return (double)x;
}

/* y = (W x - mean) gamma / sqrt(var + eps) + beta as one convolution. */
static ht_status fold(ht_arena *arena, const layer *l, const ht_tensor *w, const ht_tensor *const bn[4],
                      ht_conv_weights *out)
{
    ht_tensor *weight, *bias;
    float *values, *shifts;
    ht_status status = new_tensor(arena, w, 4, ht_sprintf(arena, "%s.weight", l->name), &weight, &values);
    if (!status)
        status = new_tensor(arena, w, 1, ht_sprintf(arena, "%s.bias", l->name), &bias, &shifts);
    if (status)
        return status;
    size_t each = w->count / (size_t)l->out;
    for (size_t o = 0; o < (size_t)l->out; o++) {
        double scale = number(bn[0], o) / sqrt(number(bn[3], o) + BN_EPS);
        ht_convert_to_f32(w->dtype, w->data, o * each, each, values + o * each);
        for (size_t i = 0; i < each; i++)
            values[o * each + i] = (float)((double)values[o * each + i] * scale);
        shifts[o] = (float)(number(bn[1], o) - number(bn[2], o) * scale);
    }
    *out = (ht_conv_weights){weight, bias};
    return HT_OK;
}

static ht_status inception_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights,
                                void **model)
{
    static const char *const parts[] = {"weight", "bias", "running_mean", "running_var"};
    inception *m = ht_alloc(arena, sizeof *m);
    const ht_tensor *w[LAYERS], *bn[LAYERS][4];
    (void)config;
    (void)where;
    if (!m)
        return HT_ERR_MEMORY;
    for (int i = 0; i < LAYERS; i++) {
        const layer *l = &layers[i];
        w[i] = ht_bind_tensor(weights, 4, (const int64_t[]){l->out, l->in, l->kernel_height, l->kernel_width},
                              "%s.conv.weight", l->name);
        for (int k = 0; k < 4; k++)
            bn[i][k] = ht_bind_tensor(weights, 1, (const int64_t[]){l->out}, "%s.bn.%s", l->name, parts[k]);
    }
    ht_bind_linear(weights, &m->fc, DIM, CLASSES, true, "fc");
    ht_status status = ht_weights_finish(weights);
    for (int i = 0; !status && i < LAYERS; i++)
        status = fold(arena, &layers[i], w[i], bn[i], &m->conv[i]);
    if (!status)
        *model = m;
    return status;
}

/* ---- the network ---- */

typedef enum out { OUT_64, OUT_192, OUT_SPATIAL, OUT_768, OUT_2048, OUT_LOGITS_UNBIASED, OUT_LOGITS } out;

static const ht_network_output outputs[] = {
    {"64", 64},         {"192", 192},  {"spatial", SPATIAL_SIDE *SPATIAL_SIDE *SPATIAL_CHANNELS},
    {"768", 768},       {"2048", DIM}, {"logits_unbiased", CLASSES},
    {"logits", CLASSES}};

static void inception_info(const void *model, ht_network_info *info)
{
    (void)model;
    *info = (ht_network_info){.height = SIDE,
                              .width = SIDE,
                              .resize = HT_RESIZE_BILINEAR,
                              .is_inception = true,
                              .mean = {0.5, 0.5, 0.5},
                              .std = {0.5, 0.5, 0.5},
                              .mean_128 = 128,
                              .outputs = sizeof outputs / sizeof *outputs,
                              .use = {OUT_2048, OUT_LOGITS_UNBIASED, OUT_SPATIAL}};
    memcpy(info->output, outputs, sizeof outputs);
}

/* The graph and the next of its layers. */
typedef struct builder {
    ht_graph *g;
    const inception *m;
    int next;
} builder;

static ht_value *conv(builder *b, ht_value *x)
{
    const layer *l = &layers[b->next];
    ht_conv_shape shape = {l->stride, l->pad_y, l->pad_x, l->pad_y, l->pad_x};
    return ht_relu(b->g, ht_conv2d(b->g, x, &b->m->conv[b->next++], shape));
}

static ht_value *convs(builder *b, ht_value *x, int n)
{
    while (n--)
        x = conv(b, x);
    return x;
}

static ht_value *join(builder *b, ht_value *a, ht_value *c)
{
    return a && c ? ht_concat(b->g, a, c) : NULL;
}

static ht_value *mean_3x3(builder *b, ht_value *x)
{
    return ht_mean_pool(b->g, x, 3, (ht_conv_shape){1, 1, 1, 1, 1});
}

static ht_value *max_3x3(builder *b, ht_value *x)
{
    return ht_max_pool(b->g, x, 3, (ht_conv_shape){.stride = 2});
}

/* [n,35,35,c] -> [n,35,35,64+64+96+pool] */
static ht_value *block_a(builder *b, ht_value *x)
{
    ht_value *point = conv(b, x), *five = convs(b, x, 2), *three = convs(b, x, 3), *pool = conv(b, mean_3x3(b, x));
    return join(b, join(b, point, five), join(b, three, pool));
}

/* [n,35,35,288] -> [n,17,17,384+96+288] */
static ht_value *block_b(builder *b, ht_value *x)
{
    ht_value *three = conv(b, x), *twice = convs(b, x, 3);
    return join(b, join(b, three, twice), max_3x3(b, x));
}

/* [n,17,17,768] -> the same.  point: the first branch, if it is asked for. */
static ht_value *block_c(builder *b, ht_value *x, ht_value **point)
{
    ht_value *first = conv(b, x), *seven = convs(b, x, 3), *twice = convs(b, x, 5), *pool = conv(b, mean_3x3(b, x));
    if (point)
        *point = first;
    return join(b, join(b, first, seven), join(b, twice, pool));
}

/* [n,17,17,768] -> [n,8,8,320+192+768] */
static ht_value *block_d(builder *b, ht_value *x)
{
    ht_value *three = convs(b, x, 2), *seven = convs(b, x, 4);
    return join(b, join(b, three, seven), max_3x3(b, x));
}

static ht_value *both_ways(builder *b, ht_value *x)
{
    ht_value *wide = conv(b, x), *tall = conv(b, x);
    return join(b, wide, tall);
}

/* [n,8,8,c] -> [n,8,8,320+768+768+192] */
static ht_value *block_e(builder *b, ht_value *x, bool largest)
{
    ht_value *point = conv(b, x), *three = both_ways(b, conv(b, x)), *twice = both_ways(b, convs(b, x, 2));
    ht_value *pool = largest ? ht_max_pool(b->g, x, 3, (ht_conv_shape){1, 1, 1, 1, 1}) : mean_3x3(b, x);
    pool = conv(b, pool);
    return join(b, join(b, point, three), join(b, twice, pool));
}

static void inception_build(const void *model, ht_graph *g, int64_t n, unsigned wanted, ht_value **made)
{
    builder b = {g, model, 0};
    (void)wanted; /* what nobody reads is dropped with the graph's finish */
    ht_value *x = ht_input(g, "images", 4, (const int64_t[]){n, SIDE, SIDE, COLOURS}, HT_DEPENDS_X), *point = NULL;
    x = max_3x3(&b, convs(&b, x, 3));
    made[OUT_64] = ht_mean(g, x);
    x = max_3x3(&b, convs(&b, x, 2));
    made[OUT_192] = ht_mean(g, x);
    for (int i = 0; i < 3; i++)
        x = block_a(&b, x);
    x = block_b(&b, x);
    for (int i = 0; i < 4; i++)
        x = block_c(&b, x, i == 2 ? &point : NULL);
    made[OUT_SPATIAL] = ht_slice(g, point, 0, SPATIAL_CHANNELS);
    made[OUT_768] = ht_mean(g, x);
    x = block_d(&b, x);
    x = block_e(&b, x, false);
    x = block_e(&b, x, true);
    x = made[OUT_2048] = ht_mean(g, x);
    made[OUT_LOGITS] = ht_linear(g, x, &b.m->fc);
    made[OUT_LOGITS_UNBIASED] = ht_linear(g, x, &(ht_linear_weights){b.m->fc.weight, NULL});
}

const ht_network ht_inception_v3 = {"inception-v3-fid", "Mixed_7c.branch_pool.conv.weight",
                                    rename_inception,   inception_open,
                                    inception_info,     inception_build};
