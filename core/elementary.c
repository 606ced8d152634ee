/* elementary.c - exp, log, sin and cos from IEEE 754 additions, multiplications and divisions alone.
 *
 * Everything here is double precision, rounded to nearest, nothing contracted into an FMA (the Makefile says so), in
 * one written order: the standard then fixes every bit of the result.  Method: the argument is reduced without rounding
 * error to an interval where the Taylor series converges fast, and the series is cut where the rest is below 2^-54 of
 * the sum.  Taylor terms instead of fitted ones cost a multiplication or two and can be checked with a pencil.
 * tests/test_rng.c holds them to the long double ones. */
#include "core/elementary.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ln 2 in two parts: the first has 32 bits, so that a whole number of up to 21 bits times it is exact. */
static const double LN2_HI = 0x1.62e42feep-1, LN2_LO = 0x1.a39ef35793c76p-33;

/* x = k ln 2 + r, |r| < 0.347: e^x = 2^k (1 + r + r^2/2! + ... + r^14/14! + rest), rest < r^15/15! < 1.1e-19. */
double ht_exp(double x)
{
    double k = floor(x / LN2_HI + 0.5), r = (x - k * LN2_HI) - k * LN2_LO, p = 1, power;
    for (int i = 14; i >= 1; i--)
        p = 1 + r / i * p;
    uint64_t bits = (uint64_t)((int64_t)k + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* x = 2^k m with m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1), |s| < 0.1716:
 * log m = 2 atanh s = 2 s (1 + s^2/3 + s^4/5 + ... + s^18/19 + rest), rest < s^20/21/(1 - s^2) < 2.4e-17. */
double ht_log(double x)
{
    uint64_t bits;
    double m, p = 0;
    memcpy(&bits, &x, sizeof bits);
    int k = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffff) | UINT64_C(1023) << 52;
    memcpy(&m, &bits, sizeof m);
    if (m > 0x1.6a09e667f3bcdp0) {
        m /= 2;
        k++;
    }
    double s = (m - 1) / (m + 1), z = s * s;
    for (int i = 19; i >= 3; i -= 2)
        p = z * (p + 1.0 / i);
    return k * LN2_HI + (2 * s + (2 * s * p + k * LN2_LO));
}

double ht_pow(double x, double y)
{
    double power =
        x == 0 ? -INFINITY : y * ht_log(x); /* its rounding, 3 units or less of the product, is what counts */
    return power < -700 ? 0 : ht_exp(power);
}

/* The nearest quarter turn is taken off, which is exact; what is left is an angle a of at most pi/4, where the first
 * terms left out, a^17/17! and a^18/18!, are below 5e-17 of a and 2e-18. */
void ht_sincos_turns(double turns, double *sine, double *cosine)
{
    static const double HALF_PI = 0x1.921fb54442d18p0;
    double quarter = floor(4 * turns + 0.5);
    double a = (4 * turns - quarter) * HALF_PI, z = a * a, s = 1, c = 1;
    for (int i = 15; i >= 3; i -= 2)
        s = 1 - z / (i * (i - 1)) * s;
    for (int i = 16; i >= 2; i -= 2)
        c = 1 - z / (i * (i - 1)) * c;
    s *= a;
    int quadrant = (int)((int64_t)quarter & 3);
    double sin_whole = quadrant & 1 ? c : s, cos_whole = quadrant & 1 ? s : c;
    *sine = quadrant & 2 ? -sin_whole : sin_whole;
    *cosine = (quadrant + 1) & 2 ? -cos_whole : cos_whole;
}
