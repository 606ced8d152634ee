/* steps.h - which of the training timesteps a sampler visits. */
#ifndef HT_SAMPLER_STEPS_H
#define HT_SAMPLER_STEPS_H

#include "sampler/schedule.h"

typedef struct ht_steps {
    int n;
    int *timesteps; /* [n], falling (DDIM's quad repeats some), each in 0 .. num_train_timesteps-1 */
} ht_steps;

/* The ht_spacing of a name, or -1. */
int ht_spacing_find(const char *name);
/* The name of a spacing; NULL past the last. */
const char *ht_spacing_name(int spacing);

/* The timesteps of a sampler that evaluates the model `steps` times, 1 .. num_train_timesteps.  `uniform` visits a few
 * more if steps does not divide num_train_timesteps: its stride is rounded down, as in the original.  HT_ERR_ARGUMENT
 * names the count or the timestep that is out of range (steps_offset can push one there). */
ht_status ht_steps_make(ht_arena *arena, const ht_schedule_config *config, ht_spacing spacing, int steps,
                        ht_steps *out);

/* space_timesteps of ADM (github.com/openai/guided-diffusion): "250" is evenly spread, "90,60,60,20,20" spreads each
 * count in its share of the range, "ddim25" takes the smallest stride that gives 25. */
ht_status ht_steps_respace(ht_arena *arena, int num_train_timesteps, const char *sections, ht_steps *out);

#endif
