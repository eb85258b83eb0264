// The inner loops of a tuning step that are not plain matrix products, forwards and backwards.
//
// Compiled on the user's machine (engine/kernels/build.py) and threaded by the OpenMP that torch has
// loaded already, so that both share one team of threads. portable.py computes the same with torch
// and is what the tests hold these files against. Activations are float or bfloat16, rows of tokens;
// sums are made in float, and everything else but what attention multiplies. The work is dealt out in one fixed way, so that equal inputs and
// threads give equal results.

#include "attention.h"

namespace {

// x (tokens, heads, dim), in place, by angles (tokens, dim): each half is mixed with the other.
// `back` 1, or -1 for the rotation backwards.
template <typename T>
void rotate(T* x, long tokens, long heads, long dim, const T* cos, const T* sin, float back) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++)
        for (long head = 0; head < heads; head++) {
            T *low = x + (t * heads + head) * dim, *high = low + dim / 2;
            for (long d = 0; d < dim / 2; d += LANES) {
                V a = load(low + d), b = load(high + d);
                V c = load(cos + t * dim + d), s = back * load(sin + t * dim + d);
                store(low + d, a * c - b * s);
                store(high + d, b * c + a * s);
            }
        }
}

template <typename T>
void rms_norm(const T* x, const T* weight, T* y, float* scales, long tokens, long n, float epsilon) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++) {
        const T* row = x + t * n;
        V squares{};
        for (long i = 0; i < n; i += LANES) squares += load(row + i) * load(row + i);
        const float scale = 1.f / __builtin_sqrtf(sum(squares) / n + epsilon);
        scales[t] = scale;
        for (long i = 0; i < n; i += LANES)
            store(y + t * n + i, load(row + i) * scale * load(weight + i));
    }
}

template <typename T>
void rms_norm_backward(const T* dy, const T* x, const T* weight, const float* scales, T* dx,
                       long tokens, long n) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++) {
        const T *row = x + t * n, *slope = dy + t * n;
        V along{};
        for (long i = 0; i < n; i += LANES)
            along += load(slope + i) * load(weight + i) * load(row + i);
        const float scale = scales[t], mean = sum(along) / n * scale * scale * scale;
        for (long i = 0; i < n; i += LANES)
            store(dx + t * n + i, load(slope + i) * load(weight + i) * scale - load(row + i) * mean);
    }
}

template <typename T>
void gated_silu(const T* gate, const T* up, T* y, long vectors) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < vectors * LANES; i += LANES) {
        V g = load(gate + i);
        store(y + i, g * sigmoid(g) * load(up + i));
    }
}

// From the gradient of y: y again, and the gradients of gate and up; `dy` becomes that of up.
template <typename T>
void gated_silu_backward(T* dy, const T* gate, const T* up, T* y, T* dgate, long vectors) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < vectors * LANES; i += LANES) {
        V g = load(gate + i), u = load(up + i), slope = load(dy + i), s = sigmoid(g);
        V activated = g * s;
        store(y + i, activated * u);
        store(dgate + i, slope * u * (s + activated * (1.f - s)));
        store(dy + i, slope * activated);
    }
}

// A tile of logits (tokens, n), `apart` from row to row, of a running softmax (Milakov & Gimelshein
// 2018, alg. 3): they become e^(logit - highest), and the sums of each token take them in. `rescale` is what sums from before
// are worth now.
template <typename T>
void softmax_tile(T* logits, long tokens, long n, long apart, const long* targets, long first,
                  float* tops, float* totals, float* logit_sums, float* own, float* rescale) {
#pragma omp parallel for schedule(static)
    for (long t = 0; t < tokens; t++) {
        T* row = logits + t * apart;
        V most = all(tops[t]), all_logits{}, total{};
        for (long i = 0; i < n; i += LANES) {
            V logit = load(row + i);
            most = larger(most, logit);
            all_logits += logit;
        }
        const long target = targets[t] - first;
        if (target >= 0 && target < n) own[t] = one(row + target);
        const float top = highest(most);
        for (long i = 0; i < n; i += LANES) {
            V weight = exponential(load(row + i) - top);
            store(row + i, weight);
            total += weight;
        }
        rescale[t] = exponential(all(tops[t] - top))[0];
        totals[t] = totals[t] * rescale[t] + sum(total);
        logit_sums[t] += sum(all_logits);
        tops[t] = top;
    }
}

}  // namespace

#define FOR_BOTH(DEFINE) DEFINE(float, f32) DEFINE(bfloat, bf16)

#define DEFINE(T, name)                                                                            \
    void burnish_attend_##name(long tokens, long heads, long key_heads, long dim, float scale,     \
                               const T* q, const T* k, const T* v, const long* segments,           \
                               long count, T* output, float* log_sums) {                           \
        attend(Sizes{tokens, heads, key_heads, dim, scale}, q, k, v,                               \
               Segments{(const Segment*)segments, count}, output, log_sums);                       \
    }                                                                                              \
    void burnish_attend_backward_##name(long tokens, long heads, long key_heads, long dim,         \
                                        float scale, const T* q, const T* k, const T* v,           \
                                        const T* output, const T* of_output,                       \
                                        const float* log_sums, const long* segments, long count,   \
                                        T* dq, T* dk, T* dv) {                                     \
        attend_backward(Sizes{tokens, heads, key_heads, dim, scale}, q, k, v, output, of_output,   \
                        log_sums, Segments{(const Segment*)segments, count}, dq, dk, dv);          \
    }                                                                                              \
    void burnish_rotate_##name(T* x, long tokens, long heads, long dim, const T* cos,              \
                               const T* sin, float back) {                                         \
        rotate(x, tokens, heads, dim, cos, sin, back);                                             \
    }                                                                                              \
    void burnish_rms_norm_##name(const T* x, const T* weight, T* y, float* scales, long tokens,    \
                                 long n, float epsilon) {                                          \
        rms_norm(x, weight, y, scales, tokens, n, epsilon);                                        \
    }                                                                                              \
    void burnish_rms_norm_backward_##name(const T* dy, const T* x, const T* weight,                \
                                          const float* scales, T* dx, long tokens, long n) {       \
        rms_norm_backward(dy, x, weight, scales, dx, tokens, n);                                   \
    }                                                                                              \
    void burnish_gated_silu_##name(const T* gate, const T* up, T* y, long vectors) {               \
        gated_silu(gate, up, y, vectors);                                                          \
    }                                                                                              \
    void burnish_gated_silu_backward_##name(T* dy, const T* gate, const T* up, T* y, T* dgate,     \
                                            long vectors) {                                        \
        gated_silu_backward(dy, gate, up, y, dgate, vectors);                                      \
    }                                                                                              \
    void burnish_softmax_tile_##name(T* logits, long tokens, long n, long apart,                   \
                                     const long* targets, long first, float* tops, float* totals,  \
                                     float* logit_sums, float* own, float* rescale) {              \
        softmax_tile(logits, tokens, n, apart, targets, first, tops, totals, logit_sums, own,      \
                     rescale);                                                                     \
    }

extern "C" {
FOR_BOTH(DEFINE)
long burnish_lanes() { return LANES; }
}
