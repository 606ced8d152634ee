/* collect.h - drawing the calibration set, for calib/make.c. */
#ifndef HT_CALIB_COLLECT_H
#define HT_CALIB_COLLECT_H

#include "calib/calibration.h"
#include "sampler/trajectory.h"

/* Walk trajectories from noise, deterministic ones, and take counts[step] samples of x_t before each step.  Where there
 * are contexts, those of the calibration, and one of no prompt, steps are guided (classifier-free guidance,
 * arXiv:2207.12598 eq. 6) and an image gives two samples, one of each branch.  Fills in everything of the calibration
 * but contexts and statistics. */
ht_status ht_calibration_collect(ht_arena *arena, ht_session *session, const ht_calibrate_options *options,
                                 const ht_trajectory *trajectory, const int *counts, ht_calibration *out);

#endif
