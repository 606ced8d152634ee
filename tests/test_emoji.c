/* test_emoji.c - the text-to-image model that comes with Halftone against what diffusers and transformers computed with
 * it (float32, CPU). */
#include "sampler/latents.h"
#include "sampler/session.h"
#include "sampler/texts.h"
#include "tests/goldens.h"

enum { TEXTS = 4, TOKENS = 77, WIDTH = 192, LATENT = 16 * 16 * 4, STEPS = 20, WALKED = 5 };

static const char folder[] = "models/emoji";
static const char *const texts[TEXTS] = {"a penguin", "A Smiling face with sunglasses, 3D style",
                                         "a cartoon emoji of a slice of pizza", ""};

typedef struct fixture {
    ht_model *unet, *vae;
    ht_safetensors *golden;
    float hidden[TEXTS][TOKENS * WIDTH]; /* recorded */
} fixture;

static int open_fixture(void **state)
{
    static fixture f;
    *state = &f;
    if (ht_model_open(folder, NULL, &f.unet) || ht_model_open(folder, "vae", &f.vae) ||
        ht_safetensors_open("tests/goldens/models/emoji.safetensors", &f.golden)) {
        print_error("%s\n", ht_error_message());
        return -1;
    }
    float *hidden = floats_of(f.golden, "text.embeddings");
    memcpy(f.hidden, hidden, sizeof f.hidden);
    free(hidden);
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    ht_safetensors_close(f->golden);
    ht_model_close(f->vae);
    ht_model_close(f->unet);
    return 0;
}

static void prompts_become_the_recorded_ids_and_vectors(void **state)
{
    const fixture *f = *state;
    static float hidden[TEXTS][TOKENS * WIDTH];
    ht_texts *t;
    ht_text read[TEXTS];
    float *ids = floats_of(f->golden, "text.ids");
    assert_ok(ht_texts_open(f->unet, &t));
    assert_non_null(t);
    assert_int_equal(ht_texts_length(t), TOKENS);
    for (int i = 0; i < TEXTS; i++) {
        assert_ok(ht_text_read(t, (const char *const[]){texts[i], NULL}, true, &read[i]));
        for (int k = 0; k < TOKENS; k++)
            assert_int_equal(read[i].prompt[0].ids[k], (int)ids[i * TOKENS + k]);
    }
    assert_ok(ht_texts_encode(t, &(ht_text_encoding){.chunks = 1}, TEXTS, read, &hidden[0][0], NULL, NULL));
    for (int i = 0; i < TEXTS; i++) {
        assert_close(texts[i], hidden[i], f->hidden[i], TOKENS * WIDTH, 2e-5);
        ht_text_free(&read[i]);
    }
    ht_texts_close(t);
    free(ids);
}

static void eps_is_the_recorded_one_at_every_timestep(void **state)
{
    const fixture *f = *state;
    static float out[2 * LATENT], hidden[2][TOKENS * WIDTH];
    ht_session *s;
    float *x = images_of(f->golden, "unet.x"), *t = floats_of(f->golden, "unet.t");
    assert_ok(ht_session_open(f->unet, &(ht_session_options){.batch = 2}, &s));
    for (int empty = 0; empty < 2; empty++) {
        const char *name = empty ? "unet.eps.empty" : "unet.eps.text";
        const ht_tensor *tensor = tensor_of(f->golden, name);
        float *want = floats_of(f->golden, name), last[LATENT];
        assert_int_equal(tensor->count, 4 * 2 * LATENT);
        for (int i = 0; i < 2; i++)
            memcpy(hidden[i], f->hidden[empty ? 3 : i], sizeof hidden[i]);
        for (int k = 0; k < 4; k++) {
            assert_ok(
                ht_predict(s, 2, x, (float[]){t[k], t[k]}, &(ht_cond){.encoder_hidden_states = &hidden[0][0]}, out));
            for (int i = 0; i < 2; i++) { /* recorded with channels first */
                for (int p = 0; p < 256; p++)
                    for (int c = 0; c < 4; c++)
                        last[p * 4 + c] = want[((k * 2 + i) * 4 + c) * 256 + p];
                assert_close(name, out + i * LATENT, last, LATENT, 1e-4);
            }
        }
        free(want);
    }
    ht_session_close(s);
    free(t);
    free(x);
}

static void pictures_become_the_recorded_latents_and_back(void **state)
{
    const fixture *f = *state;
    static float zeros[LATENT], latents[LATENT], picture[64 * 64 * 3];
    ht_latents *l;
    float *image = images_of(f->golden, "vae.encode.image"), *mean = images_of(f->golden, "vae.encode.mean");
    float *latent = images_of(f->golden, "vae.decode.latent"), *want = images_of(f->golden, "vae.decode.image");
    float *end = images_of(f->golden, "ddim.latents"), *drawn = images_of(f->golden, "ddim.image");
    assert_ok(ht_latents_open(f->vae, &(ht_session_options){0}, 16, 16, &l));
    assert_ok(ht_latents_encode(l, image, zeros, latents));
    for (int i = 0; i < LATENT; i++)
        mean[i] *= f->vae->coding.scaling_factor;
    assert_close("mean of the posterior", latents, mean, LATENT, 1e-4);
    assert_ok(ht_latents_decode(l, latent, picture));
    assert_close("decoded", picture, want, 64 * 64 * 3, 1e-4);
    assert_ok(ht_latents_decode(l, end, picture));
    assert_close("the trajectory's picture", picture, drawn, 64 * 64 * 3, 1e-4);
    ht_latents_close(l);
    free(drawn);
    free(end);
    free(want);
    free(latent);
    free(mean);
    free(image);
}

typedef struct walk {
    const float *states; /* [STEPS][4][256] */
    const float *x;
    int step;
} walk;

/* Every state so far is the recorded one; enough of them are walked. */
static int compare_state(void *user, int64_t done, int64_t total)
{
    walk *w = user;
    float want[LATENT];
    assert_int_equal(total, STEPS);
    assert_int_equal(done, w->step + 1);
    for (int p = 0; p < 256; p++)
        for (int c = 0; c < 4; c++)
            want[p * 4 + c] = w->states[(w->step * 4 + c) * 256 + p];
    assert_close("state", w->x, want, LATENT, 1e-4);
    return ++w->step == WALKED;
}

static void guided_ddim_goes_through_the_recorded_states(void **state)
{
    const fixture *f = *state;
    ht_session *s;
    float x[LATENT], *noise = images_of(f->golden, "ddim.noise"), *states = floats_of(f->golden, "ddim.trajectory");
    walk w = {states, x, 0};
    const ht_cond own = {.encoder_hidden_states = f->hidden[0]}, away = {.encoder_hidden_states = f->hidden[3]};
    ht_sample_options o = {.steps = STEPS, .noise = noise, .cond = &own, .negative = &away, .guidance = 5};
    o.progress = compare_state;
    o.user = &w;
    assert_ok(ht_session_open(f->unet, &(ht_session_options){.batch = 2}, &s));
    assert_int_equal(ht_sample(s, &o, 0, 1, x), HT_ERR_CANCELLED);
    assert_int_equal(w.step, WALKED);
    ht_session_close(s);
    free(states);
    free(noise);
}

static void info_is_that_of_the_card(void **state)
{
    const fixture *f = *state;
    ht_model_info info;
    ht_model_get_info(f->unet, &info);
    assert_string_equal(info.class_name, "UNet2DConditionModel");
    assert_string_equal(info.scheduler, "DDIMScheduler");
    assert_int_equal(info.parameters, 4887012);
    assert_int_equal(info.cross_attention_dim, WIDTH);
    assert_int_equal(f->vae->coding.factor, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_become_the_recorded_ids_and_vectors),
        cmocka_unit_test(eps_is_the_recorded_one_at_every_timestep),
        cmocka_unit_test(pictures_become_the_recorded_latents_and_back),
        cmocka_unit_test(guided_ddim_goes_through_the_recorded_states),
        cmocka_unit_test(info_is_that_of_the_card),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
