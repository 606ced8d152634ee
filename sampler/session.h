/* session.h - running a compiled model inside the library: tables once per schedule, conditions once per batch, then
 * steps. */
#ifndef HT_SAMPLER_SESSION_H
#define HT_SAMPLER_SESSION_H

#include "sampler/model.h"

const ht_model *ht_session_model(const ht_session *s);
int ht_session_batch(const ht_session *s);
int ht_session_height(const ht_session *s);
int ht_session_width(const ht_session *s);

/* Run the {t} stage for each timestep into a table with a row each; later calls name rows by their index.  A schedule
 * that is there already is not run again.  The table grows when one is longer than any before, else nothing is
 * allocated. */
ht_status ht_session_set_timesteps(ht_session *s, int n, const float *timesteps);

/* Whether cond has for n images what the model takes, no more, and in range.  NULL is right if the model takes nothing.
 */
ht_status ht_session_check_cond(const ht_session *s, int64_t n, const ht_cond *cond);

/* Numbers an image of entry i of ht_conditions. */
int64_t ht_session_numbers(const ht_session *s, int condition);

/* The rows from image `at` on; no rows of NULL. */
ht_cond ht_session_cond_from(const ht_session *s, const ht_cond *cond, int64_t at);

/* Run the {cond} stage for the n <= batch images that come next; checks cond. */
ht_status ht_session_set_cond(ht_session *s, int n, const ht_cond *cond);

/* out = model(x, timestep of this row, cond) for the n images of the last _set_cond.  x [n,h,w,in], out [n,h,w,out].
 * Allocates nothing. */
ht_status ht_session_step(ht_session *s, int row, const float *x, float *out);

/* The value of a tap after the last step (borrowed until the next call), NULL if the name is not tapped. */
const float *ht_session_tap(const ht_session *s, const char *name, int64_t *count);
/* What a session for research has more than one for drawing. */
typedef struct ht_session_extras {
    const char *const *taps; /* keep the values of these names; NULL-terminated list, NULL: none */
    bool unfused;            /* leave the graph as the model built it */
    ht_observe observe;      /* what calibration wants to see */
    const ht_layers *layers; /* quantized layers instead of the model's own, borrowed for as long as the session */
} ht_session_extras;

ht_status ht_session_open_with(ht_model *model, const ht_session_options *options, const ht_session_extras *extras,
                               ht_session **session);

const ht_graph *ht_session_graph(const ht_session *s);

/* A kept value after the last step, for the images of the last _set_cond: ht_session_value_count numbers.  Of values
 * that depend on {t} alone the row of that step. */
int64_t ht_session_value_count(const ht_session *s, const ht_value *v);
ht_status ht_session_read(ht_session *s, const ht_value *v, float *out);

/* As ht_session_open, keeping the values of these names (NULL-terminated list; NULL: none).  fuse 0 leaves the graph as
 * the model built it. */
ht_status ht_session_open_taps(ht_model *model, const ht_session_options *options, const char *const *taps, bool fuse,
                               ht_session **session);

#endif
