/* small_model.h - a random UNet2DModel in a folder: two levels, one residual block each, attention in the second, 8x8
 * images. */
#ifndef HT_TESTS_SMALL_MODEL_H
#define HT_TESTS_SMALL_MODEL_H

#include "core/arena.h"
#include "core/rng.h"
#include "tests/tree.h"

typedef struct small_model {
    int64_t a, b; /* channels of the levels */
    int classes;  /* 0: none */
    uint32_t seed;
    const char *scheduler; /* more of scheduler_config.json, as "\"timestep_spacing\":\"trailing\"" */
    void (*change)(ht_tensor *tensors, int n); /* before they are written; NULL: nothing */
} small_model;

enum { SMALL_SIDE = 8, SMALL_PIXELS = SMALL_SIDE * SMALL_SIDE * 3, SMALL_TENSORS = 192 };

typedef struct small_tensors {
    ht_arena *arena;
    ht_mt19937 rng;
    ht_tensor tensor[SMALL_TENSORS];
    int n;
} small_tensors;

static inline void small_put(small_tensors *s, const char *prefix, const char *leaf, int ndim, const int64_t *shape)
{
    ht_tensor *t = &s->tensor[s->n++];
    assert_true(s->n <= SMALL_TENSORS);
    *t = (ht_tensor){.dtype = HT_F32, .ndim = ndim, .count = 1, .name = ht_sprintf(s->arena, "%s.%s", prefix, leaf)};
    for (int i = 0; i < ndim; i++)
        t->count *= (size_t)(t->shape[i] = shape[i]);
    float *x = ht_alloc_array(s->arena, t->count, sizeof *x);
    assert_non_null(x);
    ht_mt19937_randn(&s->rng, t->count, x);
    float spread = ndim == 1 ? 0.1f : 1 / sqrtf((float)t->count / (float)shape[0]);
    for (size_t i = 0; i < t->count; i++)
        x[i] = x[i] * spread + (strstr(prefix, "norm") && leaf[0] == 'w' ? 1.0f : 0.0f);
    t->data = x;
    t->bytes = t->count * sizeof *x;
}

static inline void small_layer(small_tensors *s, const char *name, int64_t in, int64_t out, int kernel)
{
    small_put(s, name, "weight", kernel ? 4 : 2, (int64_t[]){out, in, kernel, kernel});
    small_put(s, name, "bias", 1, &out);
}

static inline void small_norm(small_tensors *s, const char *name, int64_t c)
{
    small_put(s, name, "weight", 1, &c);
    small_put(s, name, "bias", 1, &c);
}

static inline void small_resnet(small_tensors *s, const char *name, int64_t in, int64_t out, int64_t embedding)
{
    small_norm(s, ht_sprintf(s->arena, "%s.norm1", name), in);
    small_layer(s, ht_sprintf(s->arena, "%s.conv1", name), in, out, 3);
    small_layer(s, ht_sprintf(s->arena, "%s.time_emb_proj", name), embedding, out, 0);
    small_norm(s, ht_sprintf(s->arena, "%s.norm2", name), out);
    small_layer(s, ht_sprintf(s->arena, "%s.conv2", name), out, out, 3);
    if (in != out)
        small_layer(s, ht_sprintf(s->arena, "%s.conv_shortcut", name), in, out, 1);
}

static inline void small_attention(small_tensors *s, const char *name, int64_t c)
{
    static const char *const parts[] = {"to_q", "to_k", "to_v", "to_out.0"};
    small_norm(s, ht_sprintf(s->arena, "%s.group_norm", name), c);
    for (int i = 0; i < 4; i++)
        small_layer(s, ht_sprintf(s->arena, "%s.%s", name, parts[i]), c, c, 0);
}

static inline void small_weights(small_tensors *s, const small_model *m)
{
    int64_t a = m->a, b = m->b, e = 4 * a;
    small_layer(s, "conv_in", 3, a, 3);
    small_layer(s, "time_embedding.linear_1", a, e, 0);
    small_layer(s, "time_embedding.linear_2", e, e, 0);
    if (m->classes)
        small_put(s, "class_embedding", "weight", 2, (int64_t[]){m->classes, e});
    small_resnet(s, "down_blocks.0.resnets.0", a, a, e);
    small_layer(s, "down_blocks.0.downsamplers.0.conv", a, a, 3);
    small_resnet(s, "down_blocks.1.resnets.0", a, b, e);
    small_attention(s, "down_blocks.1.attentions.0", b);
    small_resnet(s, "mid_block.resnets.0", b, b, e);
    small_attention(s, "mid_block.attentions.0", b);
    small_resnet(s, "mid_block.resnets.1", b, b, e);
    small_resnet(s, "up_blocks.0.resnets.0", b + b, b, e);
    small_attention(s, "up_blocks.0.attentions.0", b);
    small_resnet(s, "up_blocks.0.resnets.1", b + a, b, e);
    small_attention(s, "up_blocks.0.attentions.1", b);
    small_layer(s, "up_blocks.0.upsamplers.0.conv", b, b, 3);
    small_resnet(s, "up_blocks.1.resnets.0", b + a, a, e);
    small_resnet(s, "up_blocks.1.resnets.1", a + a, a, e);
    small_norm(s, "conv_norm_out", a);
    small_layer(s, "conv_out", a, 3, 3);
}

static inline void small_config(const char *folder, const small_model *m)
{
    char path[600];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "{\"_class_name\":\"UNet2DModel\",\"sample_size\":%d,\"block_out_channels\":[%d,%d],\"layers_per_block\":1,"
            "\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],\"up_block_types\":[\"AttnUpBlock2D\","
            "\"UpBlock2D\"],\"norm_num_groups\":4,\"attention_head_dim\":8",
            SMALL_SIDE, (int)m->a, (int)m->b);
    if (m->classes)
        fprintf(f, ",\"num_class_embeds\":%d", m->classes);
    fprintf(f, "}\n");
    assert_int_equal(fclose(f), 0);
    snprintf(path, sizeof path, "%s/scheduler_config.json", folder);
    assert_non_null(f = fopen(path, "w"));
    fprintf(f, "{\"_class_name\":\"DDIMScheduler\",\"clip_sample\":false%s%s}\n", m->scheduler ? "," : "",
            m->scheduler ? m->scheduler : "");
    assert_int_equal(fclose(f), 0);
}

#define SMALL_WEIGHTS "diffusion_pytorch_model.safetensors"

/* Write the model into a new folder. */
static inline void write_small_model(const char *folder, const small_model *m)
{
    char path[600];
    small_tensors *s = calloc(1, sizeof *s);
    assert_non_null(s);
    assert_non_null(s->arena = ht_arena_create());
    ht_mt19937_seed(&s->rng, m->seed);
    small_weights(s, m);
    if (m->change)
        m->change(s->tensor, s->n);
    assert_int_equal(mkdir(folder, 0777), 0);
    small_config(folder, m);
    snprintf(path, sizeof path, "%s/%s", folder, SMALL_WEIGHTS);
    assert_ok(ht_safetensors_write(path, s->tensor, (size_t)s->n, NULL, 0));
    ht_arena_free(s->arena);
    free(s);
}

#endif
