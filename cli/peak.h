/* peak.h - how many float32 operations a second this machine can do: the roof that bench's figures stand under. */
#ifndef HALFTONE_CLI_PEAK_H
#define HALFTONE_CLI_PEAK_H

/* Measure with so many threads, 0: all processors that the process may use; takes about 0.3 s.  FLOP/s; *isa gets the
 * name of the instruction set. */
double peak_measure(int threads, const char **isa);

#endif
