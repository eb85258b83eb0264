// Vectors of one register, as the compiler has them, of floats and of bfloats widened to floats.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr long LANES = 16, VECTORS = 4;  // of a tile of a product: 6 x 4 sums fill the registers
#else
constexpr long LANES = 8, VECTORS = 2;
#endif
constexpr long ROWS = 6;

typedef float V __attribute__((vector_size(LANES * 4)));
typedef int32_t I __attribute__((vector_size(LANES * 4)));
typedef uint32_t U __attribute__((vector_size(LANES * 4)));
typedef uint16_t H __attribute__((vector_size(LANES * 2)));

struct bfloat {
    uint16_t bits;
};

template <typename To, typename From>
inline To reread(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline V load(const bfloat* p) {
    H h;
    std::memcpy(&h, p, sizeof h);
    return reread<V>(__builtin_convertvector(h, U) << 16);
}
inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
inline void store(bfloat* p, V v) {  // to the nearest, ties to even; what is no number stays none
#ifdef __AVX512BF16__
    H h = reread<H>(_mm512_cvtneps_pbh((__m512)v));
#else
    U bits = reread<U>(v);
    U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    H h = __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40, H);
#endif
    std::memcpy(p, &h, sizeof h);
}
inline float one(const float* p) { return *p; }
inline float one(const bfloat* p) { return reread<float>(uint32_t(p->bits) << 16); }

inline V all(float x) { return V{} + x; }
inline V larger(V a, V b) { return a > b ? a : b; }

template <typename Reduce>
inline float reduce(V v, Reduce two) {
    float lanes[LANES];
    store(lanes, v);
    for (long width = LANES / 2; width; width /= 2)
        for (long i = 0; i < width; i++) lanes[i] = two(lanes[i], lanes[i + width]);
    return lanes[0];
}
inline float sum(V v) { return reduce(v, [](float a, float b) { return a + b; }); }
inline float highest(V v) { return reduce(v, [](float a, float b) { return a > b ? a : b; }); }

// e^x, relative error below 3e-7: 2^n times a polynomial in the rest (Cephes' expf). Below -80 it is
// e^-80, which adds nothing: what lies far below has denormal numbers, 20 times slower.
inline V exponential(V x) {
    const float magic = 12582912.f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    x = x < -80.f ? all(-80.f) : x;
    x = x > 88.f ? all(88.f) : x;
    V n = (x * 1.44269504f + magic) - magic;
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V y = all(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
        y = y * r + c;
    y = y * r * r + r + 1.f;
    return y * reread<V>((__builtin_convertvector(n, I) + 127) << 23);
}

inline V sigmoid(V x) { return 1.f / (1.f + exponential(-x)); }

}  // namespace
