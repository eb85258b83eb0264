// Products of small matrices, and how their operands are laid out.

#pragma once

#include "vectors.h"

namespace {

// What products of a format are made of: single floats, or two bfloats side by side along the sum,
// which some processors multiply and add in one instruction.
template <typename T>
struct Format {
    using Part = float;
    static constexpr long NUMBERS = 1;  // in a part
};

inline void multiply_add(V& sum, float a, const float* b) { sum += a * load(b); }

#ifdef __AVX512BF16__
template <>
struct Format<bfloat> {
    using Part = uint32_t;
    static constexpr long NUMBERS = 2;
};

inline void multiply_add(V& sum, uint32_t a, const uint32_t* b) {
    sum = (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a),
                              (__m512bh)_mm512_loadu_si512(b));
}
#endif

template <typename T>
using Part = typename Format<T>::Part;

// A matrix whose element (i, k) is at[i * row + k * column].
template <typename P>
struct Strided {
    const P* at;
    long row, column;

    Strided from(long i) const { return {at + i * row, row, column}; }
};

template <long M, long N, typename P>
inline void tile(Strided<P> a, const P* b, long ldb, float* c, long ldc, long depth, bool onto) {
    V sums[M][N];
    for (long i = 0; i < M; i++)
        for (long j = 0; j < N; j++) sums[i][j] = onto ? load(c + i * ldc + j * LANES) : V{};
    for (long k = 0; k < depth; k++)
        for (long i = 0; i < M; i++)
            for (long j = 0; j < N; j++)
                multiply_add(sums[i][j], a.at[i * a.row + k * a.column], b + k * ldb + j * LANES);
    for (long i = 0; i < M; i++)
        for (long j = 0; j < N; j++) store(c + i * ldc + j * LANES, sums[i][j]);
}

template <long N, typename P>
inline void column(Strided<P> a, const P* b, long ldb, float* c, long ldc, long m, long depth,
                   bool onto) {
    long i = 0;
    for (; i + ROWS <= m; i += ROWS)
        tile<ROWS, N>(a.from(i), b, ldb, c + i * ldc, ldc, depth, onto);
    for (; i < m; i++) tile<1, N>(a.from(i), b, ldb, c + i * ldc, ldc, depth, onto);
}

// c (m x n) = a (m x depth) b (depth x n), or that added to it. n is rounded up to whole vectors;
// depth counts parts.
template <typename P>
void product(Strided<P> a, const P* b, long ldb, float* c, long ldc, long m, long n, long depth,
             bool onto = false) {
    long j = 0;
    for (; j + VECTORS * LANES <= n; j += VECTORS * LANES)
        column<VECTORS>(a, b + j, ldb, c + j, ldc, m, depth, onto);
    for (; j < n; j += LANES) column<1>(a, b + j, ldb, c + j, ldc, m, depth, onto);
}

// ---------------------------------------------------------------------------------------------
// Operands of products: numbers that are summed over lie side by side in a part.

inline long rounded_up(long n, long to) { return (n + to - 1) / to * to; }

template <typename T>
long parts(long numbers) {
    return rounded_up(numbers, Format<T>::NUMBERS) / Format<T>::NUMBERS;
}

// What is right of a product over the numbers of each row: (dim, count), from rows row(0) ...
template <typename T, typename Row>
void turned(Row row, long count, long dim, Part<T>* into, long width) {
    for (long r = 0; r < count; r++) {
        const Part<T>* from = (const Part<T>*)row(r);
        for (long i = 0; i < parts<T>(dim); i++) into[i * width + r] = from[i];
    }
}

// What is right of a product over the rows: (count, dim)
template <typename Row>
void upright(Row row, long count, long dim, float* into) {
    for (long r = 0; r < count; r++) std::memcpy(into + r * dim, row(r), dim * sizeof(float));
}

// What is left of a product over the keys, from weights (rows, width): (rows, width)
inline Strided<float> over_keys(const float* weights, long, long width, float*) {
    return {weights, width, 1};
}

// What is left of a product over the rows: (width, rows)
inline Strided<float> over_rows(const float* weights, long, long width, float*) {
    return {weights, 1, width};
}

#ifdef __AVX512BF16__
inline U bits(V v) { return __builtin_convertvector(reread<H>(_mm512_cvtneps_pbh((__m512)v)), U); }
inline U bits(const bfloat* p) { return reread<U>(load(p)) >> 16; }

template <typename Row>
void upright(Row row, long count, long dim, uint32_t* into) {
    for (long r = 0; r < count; r += 2)
        for (long d = 0; d < dim; d += LANES) {
            U pairs = bits(row(r) + d);
            if (r + 1 < count) pairs |= bits(row(r + 1) + d) << 16;
            std::memcpy(into + r / 2 * dim + d, &pairs, sizeof pairs);
        }
}

inline Strided<uint32_t> over_keys(const float* weights, long rows, long width, uint32_t* into) {
    for (long i = 0; i < rows * width; i += LANES) store((bfloat*)into + i, load(weights + i));
    return {into, width / 2, 1};
}

inline Strided<uint32_t> over_rows(const float* weights, long rows, long width, uint32_t* into) {
    for (long r = 0; r < rows; r += 2)
        for (long j = 0; j < width; j += LANES) {
            U pairs = bits(load(weights + r * width + j));
            if (r + 1 < rows) pairs |= bits(load(weights + (r + 1) * width + j)) << 16;
            std::memcpy(into + r / 2 * width + j, &pairs, sizeof pairs);
        }
    return {into, 1, width};
}
#endif

}  // namespace
