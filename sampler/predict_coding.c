/* predict_coding.c - an autoencoder on the tensors of a file: `z` [n,c,h,w] decoded, or `x` encoded; what comes out has
 * the library's names. */
#include "sampler/coding.h"
#include "sampler/predict_private.h"

/* One output of all images, channels last as it comes. */
typedef struct result {
    const ht_coded *coded;
    int64_t c, h, w;
    float *values;
} result;

typedef struct request {
    const ht_input_file *file;
    ht_image_tensor in;
    ht_coding *coding;
    result results[HT_AUTOENCODER_OUTPUTS];
    int n_results;
} request;

static ht_status take_results(request *r, const ht_coded *coded)
{
    for (const ht_value *v; (v = ht_coding_output(r->coding, r->n_results)); r->n_results++) {
        result *out = &r->results[r->n_results];
        size_t count;
        *out = (result){&coded[r->n_results], v->shape[3], v->shape[1], v->shape[2], NULL};
        if (!ht_mul_size((size_t)r->in.n, (size_t)(out->c * out->h * out->w), &count))
            return ht_fail(HT_ERR_MEMORY, "out of memory for %lld images", (long long)r->in.n);
        out->values = ht_alloc_array(r->file->arena, count, sizeof *out->values);
        if (!out->values)
            return HT_ERR_MEMORY;
    }
    return HT_OK;
}

/* Batch by batch, asking after each whether to go on. */
static ht_status run_all(request *r, const ht_predict_how *how)
{
    int64_t batch = ht_coding_batch(r->coding), image = r->in.c * r->in.h * r->in.w;
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < r->in.n; at += batch) {
        int64_t n = r->in.n - at < batch ? r->in.n - at : batch;
        status = ht_coding_run(r->coding, (int)n, r->in.x + at * image);
        for (int i = 0; !status && i < r->n_results; i++) {
            const result *out = &r->results[i];
            status = ht_coding_read(r->coding, i, out->values + at * out->c * out->h * out->w);
        }
        if (!status)
            status = ht_predict_go_on(how, at + n, r->in.n);
    }
    return status;
}

/* As the library has it: images [n,c,h,w], numbers of rows in one list. */
static ht_status to_tensor(const request *r, const result *out, ht_tensor *t)
{
    size_t count = (size_t)(r->in.n * out->c * out->h * out->w);
    size_t size = out->coded->rows ? sizeof(int64_t) : sizeof(float);
    void *data = ht_alloc_array(r->file->arena, count, size);
    if (!data)
        return HT_ERR_MEMORY;
    *t = (ht_tensor){.name = out->coded->name, .data = data, .count = count, .bytes = count * size};
    if (out->coded->rows) {
        t->dtype = HT_I64;
        t->ndim = 1;
        t->shape[0] = (int64_t)count;
        for (size_t i = 0; i < count; i++)
            ((int64_t *)data)[i] = (int64_t)out->values[i];
        return HT_OK;
    }
    t->dtype = HT_F32;
    t->ndim = 4;
    t->shape[0] = r->in.n;
    t->shape[1] = out->c;
    t->shape[2] = out->h;
    t->shape[3] = out->w;
    ht_transpose(out->values, data, r->in.n, out->h * out->w, out->c);
    return HT_OK;
}

static ht_status write_results(const request *r, const char *path)
{
    ht_tensor tensors[HT_AUTOENCODER_OUTPUTS];
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->n_results; i++)
        status = to_tensor(r, &r->results[i], &tensors[i]);
    return status ? status : ht_safetensors_write(path, tensors, (size_t)r->n_results, NULL, 0);
}

ht_status ht_predict_coding(const ht_input_file *f, ht_model *model, const ht_predict_how *how, const char *out)
{
    const ht_autoencoder_info *info = &model->coding;
    bool z = ht_safetensors_find(f->tensors, "z"), x = ht_safetensors_find(f->tensors, "x");
    ht_session_options o = how->options ? *how->options : (ht_session_options){0};
    request r = {.file = f};
    if (z == x)
        return ht_fail(HT_ERR_ARGUMENT, "%s: wanted a tensor called z to decode or one called x to encode%s", f->path,
                       z ? ", not both" : "");
    ht_status status = ht_read_images(f, z ? "z" : "x", z ? info->latent_channels : info->in_channels, &r.in);
    if (status)
        return status;
    o.batch = o.batch ? o.batch : (int)r.in.n;
    o.height = (int)r.in.h;
    o.width = (int)r.in.w;
    status = ht_coding_open(model, z ? HT_DECODE : HT_ENCODE, &o, &r.coding);
    if (status)
        return status;
    status = take_results(&r, z ? info->decoded : info->encoded);
    if (!status)
        status = run_all(&r, how);
    if (!status)
        status = write_results(&r, out);
    ht_coding_close(r.coding);
    return status;
}
