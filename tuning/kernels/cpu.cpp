// The inner loops of a tuning step that are not plain matrix products, forwards and backwards.
//
// Compiled on the user's machine (engine/kernels/build.py) and threaded by the OpenMP that torch has
// loaded already, so that both share one team of threads. portable.py computes the same with torch
// and is what the tests hold this file against. Activations are float or bfloat16, rows of tokens;
// everything is computed in float. The work is dealt out in one fixed way, so that equal inputs and
// threads give equal results.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
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
    U bits = reread<U>(v);
    U rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    H h = __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40, H);
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

// A matrix whose element (i, k) is at[i * row + k * column].
struct Strided {
    const float* at;
    long row, column;
};

template <long M, long N>
inline void tile(Strided a, const float* b, long ldb, float* c, long ldc, long depth, bool onto) {
    V sums[M][N];
    for (long i = 0; i < M; i++)
        for (long j = 0; j < N; j++) sums[i][j] = onto ? load(c + i * ldc + j * LANES) : V{};
    for (long k = 0; k < depth; k++) {
        V row[N];
        for (long j = 0; j < N; j++) row[j] = load(b + k * ldb + j * LANES);
        for (long i = 0; i < M; i++) {
            float factor = a.at[i * a.row + k * a.column];
            for (long j = 0; j < N; j++) sums[i][j] += factor * row[j];
        }
    }
    for (long i = 0; i < M; i++)
        for (long j = 0; j < N; j++) store(c + i * ldc + j * LANES, sums[i][j]);
}

template <long N>
inline void column(Strided a, const float* b, long ldb, float* c, long ldc, long m, long depth,
                   bool onto) {
    long i = 0;
    for (; i + ROWS <= m; i += ROWS)
        tile<ROWS, N>({a.at + i * a.row, a.row, a.column}, b, ldb, c + i * ldc, ldc, depth, onto);
    for (; i < m; i++)
        tile<1, N>({a.at + i * a.row, a.row, a.column}, b, ldb, c + i * ldc, ldc, depth, onto);
}

// c (m x n) = a (m x depth) b (depth x n), or that added to it; n is rounded up to whole vectors
void product(Strided a, const float* b, long ldb, float* c, long ldc, long m, long n, long depth,
             bool onto) {
    long j = 0;
    for (; j + VECTORS * LANES <= n; j += VECTORS * LANES)
        column<VECTORS>(a, b + j, ldb, c + j, ldc, m, depth, onto);
    for (; j < n; j += LANES) column<1>(a, b + j, ldb, c + j, ldc, m, depth, onto);
}

// ---------------------------------------------------------------------------------------------
// Attention (Dao et al. 2022). A tile of query rows sees the keys of its prompt and those of its own
// segment up to itself; its scores are held whole, prompt first.

constexpr long QUERY_ROWS = 24;  // of a tile; a multiple of ROWS

struct Segment {
    long prompt_start, prompt_end, start, end;
};

struct Sizes {
    long tokens, heads, key_heads, dim;
    float scale;
};

// One tile of query rows and what it sees.
struct Tile {
    Segment segment;
    long first, last;  // tokens

    long rows() const { return last - first; }
    long prompt() const { return segment.prompt_end - segment.prompt_start; }
    long seen() const { return prompt() + last - segment.start; }
};

std::vector<Tile> tiles_of(const Segment* segments, long count) {
    std::vector<Tile> tiles;
    for (long s = 0; s < count; s++)
        for (long first = segments[s].start; first < segments[s].end; first += QUERY_ROWS)
            tiles.push_back({segments[s], first, std::min(first + QUERY_ROWS, segments[s].end)});
    return tiles;
}

// Keys or values of all heads in float: as rows (head, token, dim) and as columns (head, dim, token).
class Held {
  public:
    template <typename T>
    Held(const T* x, const Sizes& sizes, bool rows, bool columns)
        : tokens_(sizes.tokens + PADDING), dim_(sizes.dim) {
        if (rows) rows_.resize(sizes.key_heads * tokens_ * dim_);
        if (columns) columns_.resize(sizes.key_heads * tokens_ * dim_);
#pragma omp parallel for schedule(static) collapse(2)
        for (long head = 0; head < sizes.key_heads; head++)
            for (long begun = 0; begun < sizes.tokens; begun += LANES) {
                long ended = std::min(begun + LANES, sizes.tokens);
                for (long t = begun; t < ended; t++)
                    for (long d = 0; d < dim_; d += LANES) {
                        V v = load(x + (t * sizes.key_heads + head) * dim_ + d);
                        if (rows) store(&rows_[(head * tokens_ + t) * dim_ + d], v);
                        if (columns)
                            for (long i = 0; i < LANES; i++)
                                columns_[(head * dim_ + d + i) * tokens_ + t] = v[i];
                    }
            }
    }

    const float* row(long head, long token) const { return &rows_[(head * tokens_ + token) * dim_]; }
    const float* column(long head, long token) const {
        return &columns_[head * dim_ * tokens_ + token];
    }
    long between_columns() const { return tokens_; }

  private:
    static constexpr long PADDING = VECTORS * LANES;  // products read whole vectors of columns
    long tokens_, dim_;
    std::vector<float> rows_, columns_;
};

// Rows of a tile (rows x dim), of one head, in float.
template <typename T>
void gather(const T* x, const Tile& tile, const Sizes& sizes, long head, float factor, float* into) {
    for (long r = 0; r < tile.rows(); r++)
        for (long d = 0; d < sizes.dim; d += LANES)
            store(into + r * sizes.dim + d,
                  factor * load(x + ((tile.first + r) * sizes.heads + head) * sizes.dim + d));
}

template <typename T>
void scatter(const float* from, const Tile& tile, const Sizes& sizes, long head, T* x) {
    for (long r = 0; r < tile.rows(); r++)
        for (long d = 0; d < sizes.dim; d += LANES)
            store(x + ((tile.first + r) * sizes.heads + head) * sizes.dim + d,
                  load(from + r * sizes.dim + d));
}

// (rows x seen) of products of the tile's rows with all keys or values that it sees
void against_all(const float* rows, const Held& held, const Tile& tile, const Sizes& sizes,
                 long key_head, float* into, long width) {
    Strided a{rows, sizes.dim, 1};
    if (tile.prompt())
        product(a, held.column(key_head, tile.segment.prompt_start), held.between_columns(), into,
                width, tile.rows(), tile.prompt(), sizes.dim, false);
    product(a, held.column(key_head, tile.segment.start), held.between_columns(),
            into + tile.prompt(), width, tile.rows(), tile.seen() - tile.prompt(), sizes.dim, false);
}

// (rows x dim) = weights (rows x seen) times all rows of keys or values that the tile sees
void mix(const float* weights, long width, const Held& held, const Tile& tile, const Sizes& sizes,
         long key_head, float* into) {
    Strided a{weights, width, 1}, own{weights + tile.prompt(), width, 1};
    if (tile.prompt())
        product(a, held.row(key_head, tile.segment.prompt_start), sizes.dim, into, sizes.dim,
                tile.rows(), sizes.dim, tile.prompt(), false);
    product(own, held.row(key_head, tile.segment.start), sizes.dim, into, sizes.dim, tile.rows(),
            sizes.dim, tile.seen() - tile.prompt(), tile.prompt() > 0);
}

// to[key] += sum over rows of weights[row][key] rows[row], for all keys that the tile sees
void spread(const float* weights, long width, const float* rows, const Tile& tile,
            const Sizes& sizes, long key_head, float* to) {
    auto at = [&](long token) { return to + (key_head * sizes.tokens + token) * sizes.dim; };
    Strided a{weights, 1, width}, own{weights + tile.prompt(), 1, width};
    product(a, rows, sizes.dim, at(tile.segment.prompt_start), sizes.dim, tile.prompt(), sizes.dim,
            tile.rows(), true);
    product(own, rows, sizes.dim, at(tile.segment.start), sizes.dim, tile.seen() - tile.prompt(),
            sizes.dim, tile.rows(), true);
}

long width_of(const std::vector<Tile>& tiles) {
    long most = 0;
    for (const Tile& tile : tiles) most = std::max(most, tile.seen());
    return (most / LANES + 2 * VECTORS) * LANES;  // products write whole vectors
}

// How many keys the r-th row of a tile sees; what lies behind them, up to whole vectors, counts as 0.
long seen_by(const Tile& tile, long r) { return tile.seen() - tile.rows() + r + 1; }

void blank(float* row, long from, long width) { std::fill(row + from, row + width, 0.f); }

template <typename T>
void attend(const Sizes& sizes, const T* q, const T* k, const T* v, const Segment* segments,
            long count, T* output, float* log_sums) {
    const std::vector<Tile> tiles = tiles_of(segments, count);
    const Held keys(k, sizes, false, true), values(v, sizes, true, false);
    const long width = width_of(tiles), group = sizes.heads / sizes.key_heads;
#pragma omp parallel
    {
        std::vector<float> rows(QUERY_ROWS * sizes.dim), mixed(QUERY_ROWS * sizes.dim);
        std::vector<float> scores(QUERY_ROWS * width);
#pragma omp for schedule(static, 1) collapse(2)
        for (long number = 0; number < long(tiles.size()); number++)
            for (long head = 0; head < sizes.heads; head++) {
                const Tile& tile = tiles[number];
                gather(q, tile, sizes, head, sizes.scale, rows.data());
                against_all(rows.data(), keys, tile, sizes, head / group, scores.data(), width);
                float totals[QUERY_ROWS];
                for (long r = 0; r < tile.rows(); r++) {
                    float* row = &scores[r * width];
                    const long seen = seen_by(tile, r);
                    const long whole = (seen + LANES - 1) / LANES * LANES;
                    std::fill(row + seen, row + whole, -std::numeric_limits<float>::infinity());
                    V most = load(row), total{};
                    for (long j = LANES; j < whole; j += LANES) most = larger(most, load(row + j));
                    const float top = highest(most);
                    for (long j = 0; j < whole; j += LANES) {
                        V p = exponential(load(row + j) - top);
                        store(row + j, p);
                        total += p;
                    }
                    blank(row, seen, std::max(whole, tile.seen()));
                    totals[r] = sum(total);
                    log_sums[(tile.first + r) * sizes.heads + head] = top + __builtin_logf(totals[r]);
                }
                mix(scores.data(), width, values, tile, sizes, head / group, mixed.data());
                for (long r = 0; r < tile.rows(); r++)
                    for (long d = 0; d < sizes.dim; d++) mixed[r * sizes.dim + d] /= totals[r];
                scatter(mixed.data(), tile, sizes, head, output);
            }
    }
}

// Alg. 4 of the paper. Each thread has sums of its own for keys and values, added up at the end.
template <typename T>
void attend_backward(const Sizes& sizes, const T* q, const T* k, const T* v, const T* output,
                     const T* of_output, const float* log_sums, const Segment* segments, long count,
                     T* dq, T* dk, T* dv) {
    const std::vector<Tile> tiles = tiles_of(segments, count);
    const Held keys(k, sizes, true, true), values(v, sizes, false, true);
    const long width = width_of(tiles), group = sizes.heads / sizes.key_heads;
    const long held = sizes.key_heads * sizes.tokens * sizes.dim;
    std::vector<std::vector<float>> of_keys(omp_get_max_threads()), of_values(omp_get_max_threads());
#pragma omp parallel
    {
        std::vector<float>&own_keys = of_keys[omp_get_thread_num()],
        &own_values = of_values[omp_get_thread_num()];
        own_keys.assign(held, 0.f);
        own_values.assign(held, 0.f);
        std::vector<float> qs(QUERY_ROWS * sizes.dim), dos(QUERY_ROWS * sizes.dim);
        std::vector<float> os(QUERY_ROWS * sizes.dim), dqs(QUERY_ROWS * sizes.dim);
        std::vector<float> p(QUERY_ROWS * width), ds(QUERY_ROWS * width);
#pragma omp for schedule(static, 1) collapse(2)
        for (long number = 0; number < long(tiles.size()); number++)
            for (long head = 0; head < sizes.heads; head++) {
                const Tile& tile = tiles[number];
                const long key_head = head / group;
                gather(q, tile, sizes, head, sizes.scale, qs.data());
                gather(of_output, tile, sizes, head, 1.f, dos.data());
                gather(output, tile, sizes, head, 1.f, os.data());
                against_all(qs.data(), keys, tile, sizes, key_head, p.data(), width);
                against_all(dos.data(), values, tile, sizes, key_head, ds.data(), width);
                for (long r = 0; r < tile.rows(); r++) {
                    const float log_sum = log_sums[(tile.first + r) * sizes.heads + head];
                    V along{};
                    for (long d = 0; d < sizes.dim; d += LANES)
                        along += load(&os[r * sizes.dim + d]) * load(&dos[r * sizes.dim + d]);
                    const float mean = sum(along);
                    float *weights = &p[r * width], *slopes = &ds[r * width];
                    const long seen = seen_by(tile, r);
                    for (long j = 0; j < seen; j += LANES) {
                        V weight = exponential(load(weights + j) - log_sum);
                        store(weights + j, weight);
                        store(slopes + j, weight * (load(slopes + j) - mean));
                    }
                    const long ended = std::max((seen + LANES - 1) / LANES * LANES, tile.seen());
                    blank(weights, seen, ended);
                    blank(slopes, seen, ended);
                }
                spread(p.data(), width, dos.data(), tile, sizes, key_head, own_values.data());
                spread(ds.data(), width, qs.data(), tile, sizes, key_head, own_keys.data());
                mix(ds.data(), width, keys, tile, sizes, key_head, dqs.data());
                for (float& x : dqs) x *= sizes.scale;
                scatter(dqs.data(), tile, sizes, head, dq);
            }
#pragma omp for schedule(static)
        for (long t = 0; t < sizes.tokens; t++)
            for (long head = 0; head < sizes.key_heads; head++)
                for (long d = 0; d < sizes.dim; d += LANES) {
                    V key{}, value{};
                    const long at = (head * sizes.tokens + t) * sizes.dim + d;
                    for (long thread = 0; thread < omp_get_num_threads(); thread++) {
                        key += load(&of_keys[thread][at]);
                        value += load(&of_values[thread][at]);
                    }
                    store(dk + (t * sizes.key_heads + head) * sizes.dim + d, key);
                    store(dv + (t * sizes.key_heads + head) * sizes.dim + d, value);
                }
    }
}

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
        attend({tokens, heads, key_heads, dim, scale}, q, k, v, (const Segment*)segments, count,   \
               output, log_sums);                                                                  \
    }                                                                                              \
    void burnish_attend_backward_##name(long tokens, long heads, long key_heads, long dim,         \
                                        float scale, const T* q, const T* k, const T* v,           \
                                        const T* output, const T* of_output,                       \
                                        const float* log_sums, const long* segments, long count,   \
                                        T* dq, T* dk, T* dv) {                                     \
        attend_backward({tokens, heads, key_heads, dim, scale}, q, k, v, output, of_output,        \
                        log_sums, (const Segment*)segments, count, dq, dk, dv);                    \
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
