/* fuzz_json.c - any text as a configuration, and each of its keys through each typed reader: a value in range, or an
 * error. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

enum { MOST = 4, MIN = -3, MAX = 1000 };

static const char *const names[] = {"linear", "scaled_linear", NULL};

static void check(int holds)
{
    if (!holds)
        abort();
}

static void check_scalars(const json_t *root, const char *key)
{
    ht_json j = {.object = root, .where = "fuzz"};
    int i = ht_json_int(&j, key, MIN, MIN, MAX);
    check(i >= MIN && i <= MAX);
    j.status = HT_OK;
    check(isfinite(ht_json_real(&j, key, 0)));
    j.status = HT_OK;
    check(ht_json_string(&j, key, "") != NULL);
    j.status = HT_OK;
    i = ht_json_choice(&j, key, 0, names);
    check(i == 0 || i == 1);
    j.status = HT_OK;
    ht_json_bool(&j, key, true);
    check(j.status == HT_OK || *ht_error_message());
}

static void check_arrays(const json_t *root, const char *key)
{
    ht_json j = {.object = root, .where = "fuzz"};
    int ints[MOST];
    double reals[MOST];
    int n = ht_json_ints(&j, key, ints, MOST, MIN, MAX);
    check(n <= MOST && (j.status == HT_OK || n == 0));
    for (int i = 0; i < n; i++)
        check(ints[i] >= MIN && ints[i] <= MAX);
    j.status = HT_OK;
    n = ht_json_reals(&j, key, reals, MOST);
    for (int i = 0; i < n; i++)
        check(isfinite(reals[i]));
    j.status = HT_OK;
    n = ht_json_choices(&j, key, ints, MOST, names);
    for (int i = 0; i < n; i++)
        check(ints[i] == 0 || ints[i] == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    json_t *root = NULL;
    const char *key;
    json_t *value;
    if (ht_json_parse((const char *)bytes, size, "fuzz", &root) != HT_OK) {
        check(!root && *ht_error_message());
        return 0;
    }
    json_object_foreach(root, key, value)
    {
        check_scalars(root, key);
        check_arrays(root, key);
    }
    json_decref(root);
    return 0;
}
