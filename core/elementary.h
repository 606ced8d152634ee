/* elementary.h - an exponential, a logarithm, a power, a sine and a cosine whose bits are the same on every machine.
 * A C library may round its own differently from version to version, and then a seed would not name an image. */
#ifndef HT_CORE_ELEMENTARY_H
#define HT_CORE_ELEMENTARY_H

/* e^x for |x| < 700, within 3 units in the last place. */
double ht_exp(double x);

/* The natural logarithm of a positive normal number, within 3 units in the last place. */
double ht_log(double x);

/* x^y of a normal x > 0, or x = 0 and y > 0, within 8 (1 + |y ln x|) units in the last place; 0 below e^-700.
 * y ln x < 700. */
double ht_pow(double x, double y);

/* sin(2 pi turns) and cos(2 pi turns), |turns| < 2^50, each within 3 units in its last place. */
void ht_sincos_turns(double turns, double *sine, double *cosine);

#endif
