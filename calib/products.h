/* products.h - the linear maps and convolutions of a model, and what each is for, found from the graph. */
#ifndef HT_CALIB_PRODUCTS_H
#define HT_CALIB_PRODUCTS_H

#include "graph/graph.h"

typedef enum ht_role {
    HT_ROLE_PLAIN,
    HT_ROLE_FIRST,          /* reads the sample */
    HT_ROLE_LAST,           /* makes the output */
    HT_ROLE_SHORTCUT,       /* a 1x1 convolution every step: round a residual block, often of a concatenation */
    HT_ROLE_DOWN,           /* stride above 1 */
    HT_ROLE_TEMPORAL,       /* depends on the timestep alone */
    HT_ROLE_TEMPORAL_FIRST, /* the first of those, behind the sinusoids */
    HT_ROLE_CONDITION       /* does not depend on the sample, but on the condition */
} ht_role;

const char *ht_role_name(ht_role role); /* "plain", "first", ... */

typedef struct ht_model_product {
    const char *name; /* the layer's: its weight's without ".weight" */
    ht_role role;
    const ht_tensor *weight;
    int64_t parts[2]; /* channels of X and X2 (0: none) */
    int reads[2];     /* the graph's numbers of X and X2 (-1: none), of the first use: products that read the same
                         have the same */
    bool first_after; /* the first to read what a HT_ROLE_FIRST made: TFMQ-DM's code leaves its inputs float */
    bool timeless;    /* depends on the condition alone, so what it reads does not change with the timestep */
    bool after_first; /* reads what the HT_ROLE_TEMPORAL_FIRST made: the same */
    int uses;         /* operations that have the weight: PixArt-alpha embeds height and width by the same layers */
    int64_t weights;
    double macs; /* of an image, all uses together */
} ht_model_product;

typedef struct ht_products {
    const ht_model_product *product; /* [n], in order of execution */
    int n;
} ht_products;

/* From a finished graph, one for each weight; names in the arena, weights borrowed from the checkpoint.
 * HT_ERR_UNSUPPORTED names a weight whose uses differ in what they read or in how often they run. */
ht_status ht_products_list(ht_arena *arena, const ht_graph *g, ht_products *products);

/* Whether it depends on the timestep alone. */
bool ht_product_is_temporal(const ht_model_product *product);

/* Operation number `use` of those of a graph of the same model that have the product's weight; NULL: so many have not.
 */
const ht_op *ht_product_op(const ht_graph *g, const ht_model_product *product, int use);

#endif
