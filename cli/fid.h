/* fid.h - the parts of `halftone fid`: its settings, where networks lie, and models as sources of images. */
#ifndef HALFTONE_CLI_FID_H
#define HALFTONE_CLI_FID_H

#include <limits.h>

#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/prompts.h"

typedef struct fid_settings {
    option_texts sets; /* A ..., B */
    const char *metrics, *features, *output, *resize;
    int64_t kid_subsets, kid_size, splits, neighbours;
    uint64_t metric_seed;
    int64_t n, steps, batch;
    const char *sampler, *spacing, *prompts, *negative;
    double eta, guidance;
    uint64_t seed;
    option_ints classes;
    run_settings run;
    bool save_stats, skip_bad, quiet, json;
} fid_settings;

/* A number of an ht_evaluation: its key, how a table calls it, and the metric that gives it. */
typedef struct fid_column {
    const char *key, *title;
    unsigned metric;
    size_t at;
    size_t deviation; /* of a number that follows as +-; 0: none */
} fid_column;

extern const fid_column fid_columns[];
extern const size_t fid_columns_count;

/* The metric of a name, as "kid" (of so many bytes): HT_METRIC_* bits, 0 if there is none. */
unsigned fid_metric_named(const char *name, size_t length);

/* A model that is sampled from while it is measured. */
typedef struct drawn {
    const fid_settings *s;
    const prompt_list *prompts; /* that images take in turn */
    const char *path;
    ht_pipeline *pipeline;
    ht_pipeline_info info;
} drawn;

/* Whether a path is that of a model. */
bool drawn_is_model(const char *path);
/* Open it for drawing; settings and prompts are borrowed until it is closed.  0, or 1 after a line on stderr. */
int drawn_open(const char *path, const fid_settings *s, const prompt_list *prompts, drawn *d);
void drawn_close(drawn *d); /* zeroed is allowed */
/* Images of it, as ht_image_source's draw; user is the drawn. */
ht_status drawn_draw(void *user, int64_t first, int64_t n, float *images);

/* The network for --features, or for a set of images of this size (0: not known): a path in `path`.  model: one of the
 * sets, whose own features folder is taken if it has one; may be NULL.  0, or 1 after a line that says where it is
 * from. */
int fid_find_network(const fid_settings *s, const char *model, int height, int width, char path[PATH_MAX]);

/* SET.NETWORK.npz, where statistics of a set are kept.  prompts: those (maybe none) of a set that is drawn, whose
 * name has besides how many, steps, seed, and a hash of all that the images depend on; NULL: of a set of pictures.  0,
 * or 1 after a line on stderr. */
int fid_statistics_name(const fid_settings *s, const prompt_list *prompts, const ht_evaluator_info *info,
                        const char *path, char name[PATH_MAX]);

#endif
