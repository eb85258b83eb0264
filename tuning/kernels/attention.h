// Attention (Dao et al. 2022). A tile of query rows sees its prompt's tokens and, behind these, those
// of its own segment up to itself; the prompt may be the segment's beginning. A segment's places are these tokens, the prompt's first; of a tile all
// scores are held.

#pragma once

#include <omp.h>

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "products.h"

namespace {

constexpr long QUERY_ROWS = 24;  // of a tile; a multiple of ROWS, and even

struct Sizes {
    long tokens, heads, key_heads, dim;
    float scale;
};

struct Segment {
    long prompt_start, prompt_end, start, end;

    long prompt() const { return prompt_end - prompt_start; }
    long own_start() const { return std::max(start, prompt_end); }
    long places() const { return prompt() + end - own_start(); }
    long width() const { return rounded_up(places(), VECTORS * LANES); }
    long token(long place) const {
        return place < prompt() ? prompt_start + place : own_start() + place - prompt();
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
    long before;  // the widths of the segments before its own
    Segment bounds;
    long first, rows;  // tokens

    long seen() const { return seen_by(rows - 1); }
    long seen_by(long row) const {
        return bounds.prompt() + std::max(0L, first + row + 1 - bounds.own_start());
    }
    long width() const { return rounded_up(seen(), LANES); }
};

std::vector<Tile> tiles_of(Segments segments) {
    std::vector<Tile> tiles;
    for (long s = 0; s < segments.count; s++) {
        const Segment& bounds = segments.at[s];
        for (long first = bounds.start; first < bounds.end; first += QUERY_ROWS)
            tiles.push_back({segments.before(s), bounds, first,
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

}  // namespace
