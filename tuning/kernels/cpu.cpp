// The inner loops of a tuning step that are not plain matrix products, forwards and backwards.
//
// Compiled on the user's machine (engine/kernels/build.py) and threaded by the OpenMP that torch has
// loaded already, so that both share one team of threads. portable.py computes the same with torch
// and is what the tests hold this file against. Activations are float or bfloat16, rows of tokens;
// everything is computed in float. The work is dealt out in one fixed way, so that equal inputs and
// threads give equal results.

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

namespace {

// ---------------------------------------------------------------------------------------------
// Vectors of one register, as the compiler has them

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

// e^x, relative error below 3e-7: 2^n times a polynomial in the rest (Cephes' expf). Below -87 it is
// 0 but for nothing that counts.
inline V exponential(V x) {
    const float magic = 12582912.f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    x = x < -87.f ? all(-87.f) : x;
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

// ---------------------------------------------------------------------------------------------
// Products

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

// ---------------------------------------------------------------------------------------------
// Attention (Dao et al. 2022). A tile of query rows sees its prompt's tokens and those of its own
// segment up to itself. A segment's places are these tokens, the prompt's first; of a tile all
// scores are held.

constexpr long QUERY_ROWS = 24;  // of a tile; a multiple of ROWS, and even

struct Sizes {
    long tokens, heads, key_heads, dim;
    float scale;
};

struct Segment {
    long prompt_start, prompt_end, start, end;

    long prompt() const { return prompt_end - prompt_start; }
    long places() const { return prompt() + end - start; }
    long width() const { return rounded_up(places(), VECTORS * LANES); }
    long token(long place) const {
        return place < prompt() ? prompt_start + place : start + place - prompt();
    }
};

struct Segments {
    const Segment* at;
    long count;

    // Of the widths of segments before one
    long before(long segment) const {
        long sum = 0;
        for (long s = 0; s < segment; s++) sum += at[s].width();
        return sum;
    }
    long widest() const {
        long most = 0;
        for (long s = 0; s < count; s++) most = std::max(most, at[s].width());
        return most;
    }
};

struct Tile {
    long segment, before;  // its number, and the widths of those before it
    Segment bounds;
    long first, rows;  // tokens

    long seen() const { return seen_by(rows - 1); }
    long seen_by(long row) const { return bounds.prompt() + first + row + 1 - bounds.start; }
    long width() const { return rounded_up(seen(), LANES); }
};

std::vector<Tile> tiles_of(Segments segments) {
    std::vector<Tile> tiles;
    for (long s = 0; s < segments.count; s++) {
        const Segment& bounds = segments.at[s];
        for (long first = bounds.start; first < bounds.end; first += QUERY_ROWS)
            tiles.push_back({s, segments.before(s), bounds, first,
                             std::min(QUERY_ROWS, bounds.end - first)});
    }
    return tiles;
}

// Where each segment's and key head's matrix begins, in units of a row of `dim`, or of a column.
inline long matrix(const Sizes& sizes, const Segment& segment, long before, long key_head) {
    return before * sizes.key_heads + segment.width() * key_head;
}

// Keys or values of every segment and key head as right sides of products.
template <typename T>
class Held {
  public:
    Held(const T* x, const Sizes& sizes, Segments segments, bool over_dim, bool over_places)
        : sizes_(sizes) {
        const long all = segments.before(segments.count) * sizes.key_heads;
        if (over_dim) turned_.resize(all * parts<T>(sizes.dim));
        if (over_places) upright_.resize(parts<T>(all) * sizes.dim);
#pragma omp parallel for schedule(dynamic) collapse(2)
        for (long s = 0; s < segments.count; s++)
            for (long head = 0; head < sizes.key_heads; head++) {
                const Segment& segment = segments.at[s];
                const long at = matrix(sizes, segment, segments.before(s), head);
                auto row = [&](long place) {
                    return x + (segment.token(place) * sizes.key_heads + head) * sizes.dim;
                };
                if (over_dim)
                    turned<T>(row, segment.places(), sizes.dim,
                              &turned_[at * parts<T>(sizes.dim)], segment.width());
                if (over_places)
                    upright(row, segment.places(), sizes.dim, &upright_[parts<T>(at) * sizes.dim]);
            }
    }

    // into (rows, width) = rows of the tile (`a`) times all rows it sees
    void score(Strided<Part<T>> a, const Tile& tile, long head, float* into, long width) const {
        const long at = matrix(sizes_, tile.bounds, tile.before, head);
        product(a, &turned_[at * parts<T>(sizes_.dim)], tile.bounds.width(), into, width, tile.rows,
                tile.seen(), parts<T>(sizes_.dim));
    }

    // into (rows, dim) = weights of the tile times all rows it sees
    void mix(Strided<Part<T>> weights, const Tile& tile, long head, float* into) const {
        const long at = matrix(sizes_, tile.bounds, tile.before, head);
        product(weights, &upright_[parts<T>(at) * sizes_.dim], sizes_.dim, into, sizes_.dim,
                tile.rows, sizes_.dim, parts<T>(tile.seen()));
    }

  private:
    Sizes sizes_;
    std::vector<Part<T>> turned_, upright_;
};

// The tile's rows of one head of a tensor (tokens, heads, dim)
template <typename T>
struct Rows {
    T* at;
    long apart;

    Rows(T* x, const Tile& tile, const Sizes& sizes, long head)
        : at(x + (tile.first * sizes.heads + head) * sizes.dim), apart(sizes.heads * sizes.dim) {}
    T* operator()(long row) const { return at + row * apart; }
    // As what is left of a product over their numbers
    auto left() const {
        using Number = std::remove_const_t<T>;
        return Strided<Part<Number>>{(const Part<Number>*)at, parts<Number>(apart), 1};
    }
};

inline void blank(float* row, long from, long width) { std::fill(row + from, row + width, 0.f); }

template <typename T>
void attend(const Sizes& sizes, const T* q, const T* k, const T* v, Segments segments, T* output,
            float* log_sums) {
    const std::vector<Tile> tiles = tiles_of(segments);
    const Held<T> keys(k, sizes, segments, true, false), values(v, sizes, segments, false, true);
    const long widest = segments.widest(), group = sizes.heads / sizes.key_heads;
#pragma omp parallel
    {
        std::vector<float> scores(QUERY_ROWS * widest), mixed(QUERY_ROWS * sizes.dim);
        std::vector<Part<T>> rounded(QUERY_ROWS * widest);
#pragma omp for schedule(static, 1) collapse(2)
        for (long number = 0; number < long(tiles.size()); number++)
            for (long head = 0; head < sizes.heads; head++) {
                const Tile& tile = tiles[number];
                const long width = tile.width();
                keys.score(Rows<const T>(q, tile, sizes, head).left(), tile, head / group,
                           scores.data(), width);
                float totals[QUERY_ROWS];
                for (long r = 0; r < tile.rows; r++) {
                    float* row = &scores[r * width];
                    const long seen = tile.seen_by(r), ended = rounded_up(seen, LANES);
                    std::fill(row + seen, row + ended, -std::numeric_limits<float>::infinity());
                    V most = load(row), total{};
                    for (long j = LANES; j < ended; j += LANES) most = larger(most, load(row + j));
                    const float top = highest(most);
                    for (long j = 0; j < ended; j += LANES) {
                        V weight = exponential(sizes.scale * (load(row + j) - top));
                        store(row + j, weight);
                        total += weight;
                    }
                    blank(row, seen, width);
                    totals[r] = sum(total);
                    log_sums[(tile.first + r) * sizes.heads + head] =
                        sizes.scale * top + __builtin_logf(totals[r]);
                }
                values.mix(over_keys(scores.data(), tile.rows, width, rounded.data()), tile,
                           head / group, mixed.data());
                const Rows<T> into(output, tile, sizes, head);
                for (long r = 0; r < tile.rows; r++)
                    for (long d = 0; d < sizes.dim; d += LANES)
                        store(into(r) + d, load(&mixed[r * sizes.dim + d]) / totals[r]);
            }
    }
}

// Gradients of keys or values, which every thread sums up for itself.
class Sums {
  public:
    Sums(const Sizes& sizes, Segments segments)
        : sizes_(sizes), segments_(segments), of_thread_(omp_get_max_threads()) {}

    void begin() {
        mine().assign(segments_.before(segments_.count) * sizes_.key_heads * sizes_.dim, 0.f);
    }

    // To each row that the tile sees, the sum of the tile's rows (upright), weighed
    template <typename P>
    void add(Strided<P> weights, const P* rows, long depth, const Tile& tile, long head) {
        const long at = matrix(sizes_, tile.bounds, tile.before, head);
        product(weights, rows, sizes_.dim, &mine()[at * sizes_.dim], sizes_.dim, tile.seen(),
                sizes_.dim, depth, true);
    }

    // One vector of one head, summed over threads and over segments that share a token
    template <typename T>
    void store_sum(long head, long d, std::vector<V>& sums, T* into) const {
        std::fill(sums.begin(), sums.end(), V{});
        for (long s = 0; s < segments_.count; s++) {
            const Segment& segment = segments_.at[s];
            const long at = matrix(sizes_, segment, segments_.before(s), head);
            for (long place = 0; place < segment.places(); place++)
                for (const std::vector<float>& own : of_thread_)
                    if (!own.empty())
                        sums[segment.token(place)] += load(&own[(at + place) * sizes_.dim + d]);
        }
        for (long t = 0; t < sizes_.tokens; t++)
            store(into + (t * sizes_.key_heads + head) * sizes_.dim + d, sums[t]);
    }

  private:
    std::vector<float>& mine() { return of_thread_[omp_get_thread_num()]; }

    Sizes sizes_;
    Segments segments_;
    std::vector<std::vector<float>> of_thread_;
};

// Alg. 4 of the paper
template <typename T>
void attend_backward(const Sizes& sizes, const T* q, const T* k, const T* v, const T* output,
                     const T* of_output, const float* log_sums, Segments segments, T* dq, T* dk,
                     T* dv) {
    const std::vector<Tile> tiles = tiles_of(segments);
    const Held<T> keys(k, sizes, segments, true, true), values(v, sizes, segments, true, false);
    const long widest = segments.widest(), group = sizes.heads / sizes.key_heads;
    Sums of_keys(sizes, segments), of_values(sizes, segments);
#pragma omp parallel
    {
        of_keys.begin();
        of_values.begin();
        std::vector<float> p(QUERY_ROWS * widest), ds(QUERY_ROWS * widest);
        std::vector<float> mixed(QUERY_ROWS * sizes.dim);
        std::vector<Part<T>> rounded(QUERY_ROWS * widest), rows(QUERY_ROWS * sizes.dim);
#pragma omp for schedule(static, 1) collapse(2)
        for (long number = 0; number < long(tiles.size()); number++)
            for (long head = 0; head < sizes.heads; head++) {
                const Tile& tile = tiles[number];
                const long key_head = head / group, width = tile.width();
                const long depth = parts<T>(tile.rows);
                const Rows<const T> qs(q, tile, sizes, head), os(output, tile, sizes, head);
                const Rows<const T> dos(of_output, tile, sizes, head);
                keys.score(qs.left(), tile, key_head, p.data(), width);
                values.score(dos.left(), tile, key_head, ds.data(), width);
                for (long r = 0; r < tile.rows; r++) {
                    const float log_sum = log_sums[(tile.first + r) * sizes.heads + head];
                    V products{};
                    for (long d = 0; d < sizes.dim; d += LANES)
                        products += load(os(r) + d) * load(dos(r) + d);
                    const float along = sum(products);
                    float *weights = &p[r * width], *slopes = &ds[r * width];
                    const long seen = tile.seen_by(r);
                    for (long j = 0; j < seen; j += LANES) {
                        V weight = exponential(sizes.scale * load(weights + j) - log_sum);
                        store(weights + j, weight);
                        store(slopes + j, sizes.scale * weight * (load(slopes + j) - along));
                    }
                    blank(weights, seen, width);
                    blank(slopes, seen, width);
                }
                upright(dos, tile.rows, sizes.dim, rows.data());
                of_values.add(over_rows(p.data(), tile.rows, width, rounded.data()), rows.data(),
                              depth, tile, key_head);
                upright(qs, tile.rows, sizes.dim, rows.data());
                of_keys.add(over_rows(ds.data(), tile.rows, width, rounded.data()), rows.data(),
                            depth, tile, key_head);
                keys.mix(over_keys(ds.data(), tile.rows, width, rounded.data()), tile, key_head,
                         mixed.data());
                const Rows<T> into(dq, tile, sizes, head);
                for (long r = 0; r < tile.rows; r++)
                    for (long d = 0; d < sizes.dim; d += LANES)
                        store(into(r) + d, load(&mixed[r * sizes.dim + d]));
            }
        std::vector<V> sums(sizes.tokens);
#pragma omp for schedule(static) collapse(2)
        for (long head = 0; head < sizes.key_heads; head++)
            for (long d = 0; d < sizes.dim; d += LANES) {
                of_keys.store_sum(head, d, sums, dk);
                of_values.store_sum(head, d, sums, dv);
            }
    }
}

#ifndef __AVX512BF16__
// Without instructions for bfloats, attention is computed on floats.

std::vector<float> widened(const bfloat* x, long count) {
    std::vector<float> wide(count);
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count; i += LANES) store(&wide[i], load(x + i));
    return wide;
}

void narrow(const std::vector<float>& wide, bfloat* into) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < long(wide.size()); i += LANES) store(into + i, load(&wide[i]));
}

void attend(const Sizes& sizes, const bfloat* q, const bfloat* k, const bfloat* v, Segments segments,
            bfloat* output, float* log_sums) {
    const long queries = sizes.tokens * sizes.heads * sizes.dim;
    const long held = sizes.tokens * sizes.key_heads * sizes.dim;
    std::vector<float> result(queries);
    attend<float>(sizes, widened(q, queries).data(), widened(k, held).data(),
                  widened(v, held).data(), segments, result.data(), log_sums);
    narrow(result, output);
}

void attend_backward(const Sizes& sizes, const bfloat* q, const bfloat* k, const bfloat* v,
                     const bfloat* output, const bfloat* of_output, const float* log_sums,
                     Segments segments, bfloat* dq, bfloat* dk, bfloat* dv) {
    const long queries = sizes.tokens * sizes.heads * sizes.dim;
    const long held = sizes.tokens * sizes.key_heads * sizes.dim;
    std::vector<float> of_q(queries), of_k(held), of_v(held);
    attend_backward<float>(sizes, widened(q, queries).data(), widened(k, held).data(),
                           widened(v, held).data(), widened(output, queries).data(),
                           widened(of_output, queries).data(), log_sums, segments, of_q.data(),
                           of_k.data(), of_v.data());
    narrow(of_q, dq);
    narrow(of_k, dk);
    narrow(of_v, dv);
}
#endif

// ---------------------------------------------------------------------------------------------
// What is done to each row

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
