/* peak.h - how many operations a second this machine can do: the roofs that bench's figures stand under. */
#ifndef HALFTONE_CLI_PEAK_H
#define HALFTONE_CLI_PEAK_H

/* Measure with so many threads, 0: all processors that the process may use; takes about 0.3 s.  FLOP/s; *isa gets the
 * name of the instruction set. */
double peak_measure(int threads, const char **isa);

/* The same for products of 8-bit integers that are summed in 32 bits, with the best that the machine has, of
 * instruction sets up to `limit` ("avx2", "avx512vnni", ...; NULL: all). */
double peak_measure_integers(int threads, const char *limit, const char **isa);

#endif
