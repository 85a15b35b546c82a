/* One proximal gradient step of the benchmark's problem as one pass over memory: what C reaches.
 *
 * u <- soft(u - W H'(H W'u - y), lambda), without any check of itself. A tile of blocks is held in
 * the cache: synthesis of its Haar coefficients with a margin, 49 taps of H'H, analysis, threshold.
 * Coefficients of a tile stand level by level, each row contiguous over blocks, so that every loop
 * is a vector loop. One thread, as XLA's loops here. Build with
 * `cc -O3 -march=native -ffast-math -shared -fPIC`.
 */
#include <math.h>
#include <string.h>

enum { SIZE = 32, TILE = 64, WIDE = TILE + 2, TAPS = 49, REACH = 24 };

static const float ROOT = 0.70710678118654752f;

/* Rows of a block: average, coarsest detail, then 2, 4, 8 and 16 details. */
static void synthesise(float rows[SIZE][WIDE], float *x) {
    float part[SIZE][WIDE];
    memcpy(part[0], rows[0], sizeof part[0]);
    for (int count = 1; count < SIZE; count *= 2) {
        int stride = SIZE / count, half = stride / 2;
        for (int i = 0; i < count; i++) {
            float *low = part[i * stride], *high = part[i * stride + half], *d = rows[count + i];
            for (int b = 0; b < WIDE; b++) {
                float s = low[b], t = d[b];
                low[b] = (s + t) * ROOT;
                high[b] = (s - t) * ROOT;
            }
        }
    }
    for (int b = 0; b < WIDE; b++)
        for (int p = 0; p < SIZE; p++) x[b * SIZE + p] = part[p][b];
}

static void analyse(const float *x, float rows[SIZE][WIDE]) {
    float part[SIZE][WIDE];
    for (int b = 0; b < TILE; b++)
        for (int p = 0; p < SIZE; p++) part[p][b] = x[b * SIZE + p];
    for (int count = SIZE / 2; count >= 1; count /= 2) {
        int stride = SIZE / count, half = stride / 2;
        for (int i = 0; i < count; i++) {
            float *low = part[i * stride], *high = part[i * stride + half], *d = rows[count + i];
            for (int b = 0; b < TILE; b++) {
                float s = low[b], t = high[b];
                low[b] = (s + t) * ROOT;
                d[b] = (s - t) * ROOT;
            }
        }
    }
    memcpy(rows[0], part[0], TILE * sizeof(float));
}

static void tile(const float *u, float *next, const float *wanted, const float *taps, long t,
                 long tiles, float lambda) {
    float rows[SIZE][WIDE], x[WIDE * SIZE], y[TILE * SIZE];
    long left = (t + tiles - 1) % tiles, right = (t + 1) % tiles;
    for (int p = 0; p < SIZE; p++) {
        rows[p][0] = u[(left * SIZE + p) * TILE + TILE - 1];
        memcpy(&rows[p][1], &u[(t * SIZE + p) * TILE], TILE * sizeof(float));
        rows[p][TILE + 1] = u[(right * SIZE + p) * TILE];
    }
    synthesise(rows, x);
    for (int at = 0; at < TILE * SIZE; at += 64) {
        float sums[64] = {0};
        const float *from = x + SIZE - REACH + at;
        for (int k = 0; k < TAPS; k++)
            for (int j = 0; j < 64; j++) sums[j] += taps[k] * from[j + k];
        memcpy(y + at, sums, sizeof sums);
    }
    analyse(y, rows);
    for (int p = 0; p < SIZE; p++) {
        const float *old = u + (t * SIZE + p) * TILE, *b = wanted + (t * SIZE + p) * TILE;
        float *new = next + (t * SIZE + p) * TILE;
        for (int i = 0; i < TILE; i++) {
            float v = old[i] - rows[p][i] + b[i], size = fabsf(v) - lambda;
            new[i] = copysignf(size > 0 ? size : 0, v);
        }
    }
}

/* u, other and wanted (W H'y) hold tiles * 2,048 numbers, tile by tile; taps are those of H'H. */
void steps(float *u, float *other, const float *wanted, const float *taps, long tiles, float lambda,
           long iterations) {
    for (long k = 0; k < iterations; k++) {
        float *from = k % 2 ? other : u, *to = k % 2 ? u : other;
        for (long t = 0; t < tiles; t++) tile(from, to, wanted, taps, t, tiles, lambda);
    }
}
