/* test_softmax.c - the formats of attention's softmax: what their codes are, what attention makes of them, and that a
 * model keeps its own. */
#include <math.h>

#include "cpu/backend.h"
#include "quant/softmax.h"
#include "sampler/session.h"
#include "tests/quantizing.h"

/* ---- codes ---- */

static float rounded(ht_softmax_format format, float e)
{
    ht_softmax_round(format, &e, 1);
    return e / ht_softmax_levels(format);
}

static void names_are_found(void **state)
{
    (void)state;
    for (int i = 0; i < HT_SOFTMAXES; i++)
        assert_int_equal(ht_softmax_find(ht_softmax_name(i)), i);
    assert_null(ht_softmax_name(HT_SOFTMAXES));
    assert_null(ht_softmax_name(-1));
    assert_int_equal(ht_softmax_find("uint3"), -1);
}

/* Codes stay as they are, and what lies between two goes to the nearer. */
static void whole_codes_are_the_nearest(void **state)
{
    (void)state;
    for (ht_softmax_format f = HT_SOFTMAX_UINT16; f <= HT_SOFTMAX_UINT8; f++) {
        int levels = (int)ht_softmax_levels(f);
        for (int c = 0; c <= levels; c++) {
            float code = (float)c / (float)levels;
            assert_true(rounded(f, code) == code);
            float a = rounded(f, (float)((c + 0.49) / levels)), b = rounded(f, (float)((c - 0.49) / levels));
            assert_true(c == levels || a == code);
            assert_true(c == 0 || b == code);
        }
    }
}

static void powers_are_the_nearest_by_logarithm(void **state)
{
    (void)state;
    for (int c = 0; c < 15; c++) {
        float power = ldexpf(1, -c);
        assert_true(rounded(HT_SOFTMAX_LOG2, power) == power);
        assert_true(rounded(HT_SOFTMAX_LOG2, power * 0.7072f) == power); /* sqrt(1/2) is 0.70711 */
        assert_true(rounded(HT_SOFTMAX_LOG2, power * 0.7071f) == (c == 14 ? 0 : power / 2));
    }
    assert_true(rounded(HT_SOFTMAX_LOG2, 0) == 0 && rounded(HT_SOFTMAX_LOG2, 0x1p-149f) == 0);
}

static void what_is_no_number_stays_none(void **state)
{
    (void)state;
    for (int f = 0; f < HT_SOFTMAXES; f++) {
        assert_true(isnan(rounded((ht_softmax_format)f, NAN)));
        assert_true(isnan(rounded((ht_softmax_format)f, -NAN)));
    }
}

/* ---- attention ---- */

enum { QUERIES = 3, KEYS = 5, WIDTH = 4 };

static void attend(ht_softmax_format format, const char *isa, const float *q, const float *k, const float *v,
                   float *out)
{
    ht_arena *own = ht_arena_create();
    ht_graph *g = ht_graph_create(own);
    ht_program *p;
    ht_value *in[] = {ht_input(g, "q", 3, (const int64_t[]){1, QUERIES, WIDTH}, HT_DEPENDS_X),
                      ht_input(g, "k", 3, (const int64_t[]){1, KEYS, WIDTH}, HT_DEPENDS_X),
                      ht_input(g, "v", 3, (const int64_t[]){1, KEYS, WIDTH}, HT_DEPENDS_X)};
    ht_value *y = ht_attention(g, in[0], in[1], in[2], 1, 1);
    y->producer->attrs.softmax = format;
    ht_output_value(g, y, "y");
    assert_ok(ht_graph_finish(g, true));
    assert_ok(ht_cpu_backend.compile(g, &(ht_backend_options){.threads = 1, .isa = isa}, &p));
    const float *data[] = {q, k, v};
    for (int i = 0; i < 3; i++)
        assert_ok(ht_cpu_backend.upload(p, in[i], data[i], 1));
    assert_ok(ht_cpu_backend.run(p, HT_STAGE_STEP, 1, NULL));
    assert_ok(ht_cpu_backend.download(p, ht_graph_output(g), out, 1));
    ht_cpu_backend.close(p);
    ht_arena_free(own);
}

/* From the definition, in double: softmax, then each row in steps of its largest value, then the product. */
static void attend_by_definition(ht_softmax_format format, const float *q, const float *k, const float *v, double *out)
{
    for (int t = 0; t < QUERIES; t++) {
        double s[KEYS], most = -INFINITY, sum = 0, largest = 0;
        for (int j = 0; j < KEYS; j++) {
            s[j] = 0;
            for (int l = 0; l < WIDTH; l++)
                s[j] += (double)q[t * WIDTH + l] * (double)k[j * WIDTH + l];
            most = fmax(most, s[j]);
        }
        for (int j = 0; j < KEYS; j++)
            sum += s[j] = exp(s[j] - most);
        for (int j = 0; j < KEYS; j++)
            largest = fmax(largest, s[j] /= sum);
        for (int l = 0; l < WIDTH; l++)
            out[t * WIDTH + l] = 0;
        for (int j = 0; j < KEYS; j++) {
            double levels = (double)ht_softmax_levels(format), share = s[j] / largest;
            double code = format == HT_SOFTMAX_LOG2 ? exp2(rint(log2(share))) : rint(share * levels) / levels;
            for (int l = 0; l < WIDTH; l++)
                out[t * WIDTH + l] += (format ? code * largest : s[j]) * (double)v[j * WIDTH + l];
        }
    }
}

static void attention_multiplies_the_rounded_softmax(void **state)
{
    (void)state;
    float q[QUERIES * WIDTH], k[KEYS * WIDTH], v[KEYS * WIDTH], out[QUERIES * WIDTH], plain[QUERIES * WIDTH] = {0};
    double want[QUERIES * WIDTH];
    ht_mt19937 rng;
    ht_mt19937_seed(&rng, 7);
    ht_mt19937_randn(&rng, QUERIES * WIDTH, q);
    ht_mt19937_randn(&rng, KEYS * WIDTH, k);
    ht_mt19937_randn(&rng, KEYS * WIDTH, v);
    for (int f = 0; f < HT_SOFTMAXES; f++) {
        attend_by_definition((ht_softmax_format)f, q, k, v, want);
        attend((ht_softmax_format)f, "scalar", q, k, v, out);
        int differ = 0;
        for (int i = 0; i < QUERIES * WIDTH; i++)
            differ += out[i] != (plain[i] = f ? plain[i] : out[i]);
        assert_int_equal(differ > 0, f > 0);
        for (int i = 0; i < QUERIES * WIDTH; i++)
            if (!(fabs((double)out[i] - want[i]) < 1e-5))
                fail_msg("%s: %g, want %g", ht_softmax_name(f), (double)out[i], want[i]);
    }
}

/* ---- models ---- */

static void a_model_keeps_its_softmax(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny), *made;
    ht_quantize_options o = with_calibration();
    for (int f = 0; f < HT_SOFTMAXES; f++) {
        ht_session *s;
        ht_model_info info;
        o.softmax = ht_softmax_name(f);
        o.rounding = "nearest";
        assert_ok(ht_model_open(quantize(m, o.softmax, &o), NULL, &made));
        ht_model_get_info(made, &info);
        assert_string_equal(info.softmax, o.softmax);
        assert_ok(ht_session_open(made, &(ht_session_options){.threads = 1, .backend = "cpu"}, &s));
        int attentions = 0;
        for (int i = 0; i < ht_graph_ops(ht_session_graph(s)); i++) {
            const ht_op *op = ht_graph_op(ht_session_graph(s), i);
            attentions += op->kind == HT_OP_attention;
            assert_int_equal(op->attrs.softmax, op->kind == HT_OP_attention ? f : 0);
        }
        assert_true(attentions > 0);
        ht_session_close(s);
        ht_model_close(made);
    }
    o.softmax = "uint3";
    assert_refused(ht_quantize(m, &o, in_root("none")), HT_ERR_ARGUMENT, "uint3");
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(whole_codes_are_the_nearest),
        cmocka_unit_test(powers_are_the_nearest_by_logarithm),
        cmocka_unit_test(what_is_no_number_stays_none),
        cmocka_unit_test(attention_multiplies_the_rounded_softmax),
        cmocka_unit_test_setup_teardown(a_model_keeps_its_softmax, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
