// The inner loops of decoding on an x86 processor with AVX2, FMA and F16C (VNNI where it exists).
//
// Compiled on the user's machine by build.py; portable.py computes the same things with torch and
// is what the tests hold this file against. Every result of a row depends on that row alone, summed
// in one fixed order, so a stream's text does not change with its neighbours in the batch.
//
// All activations are float32, row-major. Weights lie in groups of 32 inputs and blocks of 8
// outputs (packed_cpu.py lays them out). Keys and values lie in pages of 32 tokens (kv_cache.py).

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace {

using half = uint16_t;

constexpr long GROUP = 32;      // inputs that share a scale
constexpr long LANES = 8;       // outputs computed side by side, one per 32-bit lane
constexpr long MAX_TILE = 6;    // rows that share one read of the weights; 6 sums fit in registers
constexpr long ROW_BLOCK = 60;  // rows whose quantized inputs stay in the second-level cache
constexpr long SHARES = 12;     // parts of a product that threads take one after the other
constexpr long QUANTIZE_LOT = 8;  // rows
constexpr long PAGE = 32;       // tokens in a page of keys and values
constexpr long QUERY_TILE = 16; // query tokens that share one read of a page

// ---------------------------------------------------------------------------------------------
// Threads. A step makes some two hundred short calls, so workers wait for the next one awake. (An
// OpenMP team does not, once the process has a second one, and torch's other threads bring theirs.)

class Pool {
  public:
    // The threads are never joined: a process ends without waiting for those that sleep.
    void start(long threads) {
        std::lock_guard<std::mutex> turn(callers_);
        for (; count_ < threads; count_++) std::thread([this] { work(); }).detach();
    }

    // Calls body(i) for every i below count, on all threads; returns when all are done. Waits for no
    // thread that took none of them: on a busy machine one may be off its core for milliseconds.
    // Engines in one process take turns.
    template <typename Body>
    void each(long count, const Body& body) {
        if (count_ == 1 || count <= 1) {
            for (long i = 0; i < count; i++) body(i);
            return;
        }
        std::lock_guard<std::mutex> turn(callers_);
        const std::function<void(long)> call = std::cref(body);
        body_ = &call;
        total_ = count;
        done_.store(0, std::memory_order_relaxed);
        left_.store(count, std::memory_order_seq_cst);
        if (asleep_.load(std::memory_order_seq_cst) > 0) {
            std::lock_guard<std::mutex> lock(sleepers_);
            wake_.notify_all();
        }
        take_all();
        for (long spins = 0; done_.load(std::memory_order_acquire) < count; spins++) relax(spins);
    }

  private:
    static constexpr long PATIENCE = 20'000;  // spins before a worker sleeps: about half a millisecond
    static constexpr long POLITE = 2'000;     // spins before a thread lets others have its core

    static void relax(long spins) {
        if (spins < POLITE) _mm_pause();
        else std::this_thread::yield();
    }

    // A call that was taken keeps body_ and total_ as they are until it is counted in done_
    void take_all() {
        long left = left_.load(std::memory_order_acquire);
        while (left > 0) {
            if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) continue;
            (*body_)(total_ - left);
            done_.fetch_add(1, std::memory_order_release);
            left = left_.load(std::memory_order_acquire);
        }
    }

    void work() {
        for (;;) {
            for (long spins = 0; left_.load(std::memory_order_acquire) <= 0; spins++) {
                if (spins < PATIENCE) {
                    relax(spins);
                    continue;
                }
                std::unique_lock<std::mutex> lock(sleepers_);
                asleep_.fetch_add(1, std::memory_order_seq_cst);
                wake_.wait(lock, [&] { return left_.load(std::memory_order_seq_cst) > 0; });
                asleep_.fetch_sub(1, std::memory_order_seq_cst);
            }
            take_all();
        }
    }

    long count_ = 1;  // threads, the caller's included
    const std::function<void(long)>* body_ = nullptr;
    long total_ = 0;
    std::atomic<long> left_{0}, done_{0}, asleep_{0};
    std::mutex callers_, sleepers_;
    std::condition_variable wake_;
};

Pool& pool() {
    static Pool* only = new Pool;  // never destroyed: its threads outlive static destructors
    return *only;
}

inline __m256 load8(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load8(const half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline void store1(float* p, float v) { *p = v; }
inline void store1(half* p, float v) { *p = _cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT); }

inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

inline float max8(__m256 v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// e^x for x <= 88, relative error below 3e-7: 2^n times a polynomial in the rest (Cephes' expf).
inline __m256 exp8(__m256 x) {
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.3f));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.f)));
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}

// ---------------------------------------------------------------------------------------------
// Linear layers: 4- or 8-bit weights times inputs rounded to 8 bits, a scale for each 32 inputs.

struct Inputs {  // a row: codes in [-127, 127], input = scale * code
    int8_t* codes;
    float* scales;
    float* sums;  // scale times the sum of the group's codes: what a weight's minimum multiplies
};

void quantize_row(const float* x, long in, long groups, int8_t* codes, float* scales, float* sums) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    for (long g = 0; g < groups; g++) {
        alignas(32) float tail[GROUP] = {};
        const float* from = x + GROUP * g;
        if (GROUP * (g + 1) > in) {
            std::memcpy(tail, from, sizeof(float) * (in - GROUP * g));
            from = tail;
        }
        __m256 v[4];
        for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(from + 8 * i);
        __m256 top = _mm256_andnot_ps(sign, v[0]);
        for (int i = 1; i < 4; i++) top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v[i]));
        float largest = max8(top);
        __m256 inverse = _mm256_set1_ps(largest > 0 ? 127.f / largest : 0.f);
        __m256i n[4];
        for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        __m256i sum = _mm256_add_epi32(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_hadd_epi32(s, s);
        s = _mm_hadd_epi32(s, s);
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i*)(codes + GROUP * g), bytes);
        scales[g] = largest / 127.f;
        sums[g] = scales[g] * _mm_cvtsi128_si32(s);
    }
}

inline __m256i four_inputs(const int8_t* p) {
    int quad;
    std::memcpy(&quad, p, 4);
    return _mm256_set1_epi32(quad);
}

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
inline __m256i dot_u8_s8(__m256i sum, __m256i u, __m256i s) { return _mm256_dpbusd_epi32(sum, u, s); }
inline __m256i widen(__m256i sum) { return sum; }
#elif defined(__AVXVNNI__)
inline __m256i dot_u8_s8(__m256i sum, __m256i u, __m256i s) { return _mm256_dpbusd_avx_epi32(sum, u, s); }
inline __m256i widen(__m256i sum) { return sum; }
#else
// 16-bit sums: u is at most 15 here, and 8 products of two pairs, 8 * 2 * 15 * 127, stay below 2^15
inline __m256i dot_u8_s8(__m256i sum, __m256i u, __m256i s) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(u, s));
}
inline __m256i widen(__m256i sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
#endif

inline __m256i dot_s8_s8(__m256i sum, __m256i w, __m256i x) {
    __m256i magnitude = _mm256_abs_epi8(x), signed_w = _mm256_sign_epi8(w, x);
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(sum, magnitude, signed_w);
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, magnitude, signed_w);
#else
    __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_w);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

struct Int4 {
    static constexpr long GROUP_BYTES = 128;  // 32 inputs x 8 outputs, two to a byte
    const uint8_t* codes;
    const half* scales;
    const half* mins;

    // codes: 4 lines of 8 outputs x 4 inputs; low nibbles hold quads 0..3, high nibbles 4..7
    template <int R>
    void group(long index, const int8_t* x, long stride, const float* xs, const float* xt, long groups,
               __m256* sums) const {
        const __m256i low = _mm256_set1_epi8(15);
        __m256i dots[R];
        for (int r = 0; r < R; r++) dots[r] = _mm256_setzero_si256();
#pragma GCC unroll 1  // unrolled, the compiler runs out of registers
        for (int quad = 0; quad < 4; quad++) {
            __m256i line = _mm256_loadu_si256((const __m256i*)(codes + index * GROUP_BYTES + 32 * quad));
            __m256i first = _mm256_and_si256(line, low);
            __m256i second = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
            for (int r = 0; r < R; r++) {
                dots[r] = dot_u8_s8(dots[r], first, four_inputs(x + r * stride + 4 * quad));
                dots[r] = dot_u8_s8(dots[r], second, four_inputs(x + r * stride + 16 + 4 * quad));
            }
        }
        __m256 scale = load8(scales + index * LANES), min = load8(mins + index * LANES);
        for (int r = 0; r < R; r++) {
            __m256 dot = _mm256_cvtepi32_ps(widen(dots[r]));
            sums[r] = _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, _mm256_set1_ps(xs[r * groups])), sums[r]);
            sums[r] = _mm256_fmadd_ps(min, _mm256_set1_ps(xt[r * groups]), sums[r]);
        }
    }
};

struct Int8 {
    static constexpr long GROUP_BYTES = 256;  // 8 lines of 8 outputs x 4 inputs
    const int8_t* codes;
    const half* scales;

    template <int R>
    void group(long index, const int8_t* x, long stride, const float* xs, const float*, long groups,
               __m256* sums) const {
        __m256i dots[R];
        for (int r = 0; r < R; r++) dots[r] = _mm256_setzero_si256();
#pragma GCC unroll 1
        for (int quad = 0; quad < 8; quad++) {
            __m256i line = _mm256_loadu_si256((const __m256i*)(codes + index * GROUP_BYTES + 32 * quad));
            for (int r = 0; r < R; r++)
                dots[r] = dot_s8_s8(dots[r], line, four_inputs(x + r * stride + 4 * quad));
        }
        __m256 scale = load8(scales + index * LANES);
        for (int r = 0; r < R; r++)
            sums[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r]),
                                      _mm256_mul_ps(scale, _mm256_set1_ps(xs[r * groups])), sums[r]);
    }
};

struct Output {
    float* y;
    long out;
    const float* bias;
    bool add;  // to what y holds: the residual

    void write(long row, long first, __m256 value) const {
        alignas(32) float lanes[LANES];
        _mm256_store_ps(lanes, value);
        float* to = y + row * out + first;
        for (long i = 0; i < std::min(LANES, out - first); i++)
            to[i] = lanes[i] + (bias ? bias[first + i] : 0.f) + (add ? to[i] : 0.f);
    }
};

template <typename Weights, int R>
void tile(const Weights& weights, const Inputs& x, long row, long block, long groups, const Output& y) {
    __m256 sums[R];
    for (int r = 0; r < R; r++) sums[r] = _mm256_setzero_ps();
    const long stride = groups * GROUP;
    for (long g = 0; g < groups; g++)
        weights.template group<R>(block * groups + g, x.codes + row * stride + g * GROUP, stride,
                                  x.scales + row * groups + g, x.sums + row * groups + g, groups, sums);
    for (int r = 0; r < R; r++) y.write(row + r, block * LANES, sums[r]);
}

template <typename Weights>
void tiles(const Weights& weights, const Inputs& x, long row, long rows, long block, long groups,
           const Output& y) {
    // As few tiles as will do, of nearly equal height: 8 rows are 4 + 4, not 6 + 2
    for (long left = (rows + MAX_TILE - 1) / MAX_TILE; rows > 0; left--) {
        long height = (rows + left - 1) / left;
        switch (height) {
            case 1: tile<Weights, 1>(weights, x, row, block, groups, y); break;
            case 2: tile<Weights, 2>(weights, x, row, block, groups, y); break;
            case 3: tile<Weights, 3>(weights, x, row, block, groups, y); break;
            case 4: tile<Weights, 4>(weights, x, row, block, groups, y); break;
            case 5: tile<Weights, 5>(weights, x, row, block, groups, y); break;
            default: tile<Weights, 6>(weights, x, row, block, groups, y);
        }
        row += height;
        rows -= height;
    }
}

template <typename Weights>
void linear(const Weights& weights, const float* x, long rows, long in, const Output& y) {
    const long groups = (in + GROUP - 1) / GROUP, blocks = (y.out + LANES - 1) / LANES;
    static thread_local std::vector<int8_t> codes;
    static thread_local std::vector<float> scales, sums;
    codes.resize(std::max<size_t>(codes.size(), rows * groups * GROUP));
    scales.resize(std::max<size_t>(scales.size(), rows * groups));
    sums.resize(std::max<size_t>(sums.size(), rows * groups));
    const Inputs q{codes.data(), scales.data(), sums.data()};
    const long lots = (rows + QUANTIZE_LOT - 1) / QUANTIZE_LOT;
    pool().each(lots, [&](long lot) {
        for (long r = lot * QUANTIZE_LOT; r < std::min(rows, (lot + 1) * QUANTIZE_LOT); r++)
            quantize_row(x + r * in, in, groups, q.codes + r * groups * GROUP, q.scales + r * groups,
                         q.sums + r * groups);
    });
    const long shares = std::min(blocks, SHARES), row_blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    pool().each(row_blocks * shares, [&](long i) {
        const long row = i / shares * ROW_BLOCK, share = i % shares;
        for (long block = blocks * share / shares; block < blocks * (share + 1) / shares; block++)
            tiles(weights, q, row, std::min(ROW_BLOCK, rows - row), block, groups, y);
    });
}

// ---------------------------------------------------------------------------------------------
// Attention over paged keys and values, with a running softmax (Milakov & Gimelshein 2018).

template <typename T>
struct Cache {
    T* keys;    // (pages, heads, head dimension, 32 tokens)
    T* values;  // (pages, heads, 32 tokens, head dimension)
    long heads, dim;

    T* key_page(long page, long head) const { return keys + (page * heads + head) * dim * PAGE; }
    T* value_page(long page, long head) const { return values + (page * heads + head) * dim * PAGE; }
};

template <int R, typename T>
void scores(const float* const* queries, const T* keys, long dim, float* out) {
    __m256 sums[R][4];
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 4; i++) sums[r][i] = _mm256_setzero_ps();
    for (long d = 0; d < dim; d++) {
        __m256 k[4];
        for (int i = 0; i < 4; i++) k[i] = load8(keys + d * PAGE + 8 * i);
        for (int r = 0; r < R; r++) {
            __m256 q = _mm256_set1_ps(queries[r][d]);
            for (int i = 0; i < 4; i++) sums[r][i] = _mm256_fmadd_ps(q, k[i], sums[r][i]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 4; i++) _mm256_storeu_ps(out + r * PAGE + 8 * i, sums[r][i]);
}

template <int R, typename T>
void weigh(const float* weights, const T* values, long dim, long tokens, float* out) {
    for (long d = 0; d < dim; d += 32) {
        const int width = std::min(4L, (dim - d) / LANES);
        __m256 sums[R][4];
        for (int r = 0; r < R; r++)
            for (int i = 0; i < width; i++) sums[r][i] = _mm256_loadu_ps(out + r * dim + d + 8 * i);
        for (long t = 0; t < tokens; t++) {
            __m256 w[R];
            for (int r = 0; r < R; r++) w[r] = _mm256_set1_ps(weights[r * PAGE + t]);
            if (width == 4) {
                for (int i = 0; i < 4; i++) {
                    __m256 v = load8(values + t * dim + d + 8 * i);
                    for (int r = 0; r < R; r++) sums[r][i] = _mm256_fmadd_ps(w[r], v, sums[r][i]);
                }
            } else {
                for (int i = 0; i < width; i++) {
                    __m256 v = load8(values + t * dim + d + 8 * i);
                    for (int r = 0; r < R; r++) sums[r][i] = _mm256_fmadd_ps(w[r], v, sums[r][i]);
                }
            }
        }
        for (int r = 0; r < R; r++)
            for (int i = 0; i < width; i++) _mm256_storeu_ps(out + r * dim + d + 8 * i, sums[r][i]);
    }
}

struct Row {  // one query of one head
    const float* query;
    long begin, end;  // the tokens it sees
    float top, total; // of the softmax so far
};

// Turns scores of a page into softmax weights; returns what earlier sums must be multiplied by.
float soften(Row& row, float* s, long page_begin, float scale) {
    const long from = std::max(0L, row.begin - page_begin), to = std::min(PAGE, row.end - page_begin);
    for (long t = 0; t < from; t++) s[t] = -INFINITY;
    for (long t = std::max(0L, to); t < PAGE; t++) s[t] = -INFINITY;
    __m256 v[4], top = _mm256_set1_ps(-INFINITY);
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_mul_ps(_mm256_loadu_ps(s + 8 * i), _mm256_set1_ps(scale));
        top = _mm256_max_ps(top, v[i]);
    }
    const float page_top = max8(top);
    if (page_top == -INFINITY) {
        std::memset(s, 0, sizeof(float) * PAGE);
        return 1.f;
    }
    const float new_top = std::max(row.top, page_top);
    const float kept = row.top == -INFINITY ? 0.f : std::exp(row.top - new_top);
    __m256 total = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        __m256 seen = _mm256_cmp_ps(v[i], _mm256_set1_ps(-INFINITY), _CMP_GT_OQ);
        __m256 e = _mm256_and_ps(exp8(_mm256_sub_ps(v[i], _mm256_set1_ps(new_top))), seen);
        total = _mm256_add_ps(total, e);
        _mm256_storeu_ps(s + 8 * i, e);
    }
    row.total = row.total * kept + sum8(total);
    row.top = new_top;
    return kept;
}

template <int R, typename T>
void attend_page(Row* rows, const T* keys, const T* values, long page_begin, long tokens, long dim,
                 float scale, float* out) {
    alignas(32) float s[R * PAGE];
    const float* queries[R];
    for (int r = 0; r < R; r++) queries[r] = rows[r].query;
    scores<R>(queries, keys, dim, s);
    for (int r = 0; r < R; r++) {
        const float kept = soften(rows[r], s + r * PAGE, page_begin, scale);
        if (kept != 1.f)
            for (long d = 0; d < dim; d++) out[r * dim + d] *= kept;
    }
    weigh<R>(s, values, dim, tokens, out);
}

template <typename T>
void attend_rows(Row* rows, long count, const T* keys, const T* values, long page_begin, long tokens, long dim,
                 float scale, float* out) {
    for (; count >= 3; count -= 3, rows += 3, out += 3 * dim)
        attend_page<3>(rows, keys, values, page_begin, tokens, dim, scale, out);
    for (; count > 0; count--, rows++, out += dim)
        attend_page<1>(rows, keys, values, page_begin, tokens, dim, scale, out);
}

struct Sequence {
    long first, count;   // its query tokens in the batch
    long past;           // tokens before them in the cache
    long prefix;         // tokens below this see each other both ways (prefix language model)
    const int32_t* pages;
};

template <typename T>
void attend(const Cache<T>& cache, const Sequence& sequence, long head, long from, long count, const float* q,
            long q_stride, long group, long window, float scale, float* out, long out_stride) {
    const long dim = cache.dim, rows = count * group;
    static thread_local std::vector<float> keys, values, sums;
    static thread_local std::vector<Row> state;
    keys.resize(dim * PAGE);
    values.resize(dim * PAGE);
    sums.assign(rows * dim, 0.f);
    state.resize(rows);
    long begin = sequence.past + sequence.count, end = 0;
    for (long r = 0; r < rows; r++) {
        const long token = from + r / group, position = sequence.past + token;
        Row& row = state[r];
        row.query = q + (sequence.first + token) * q_stride + (head * group + r % group) * dim;
        row.end = std::max(position + 1, sequence.prefix);
        row.begin = window > 0 ? std::max(0L, position + 1 - window) : 0;
        row.top = -INFINITY;
        row.total = 0.f;
        begin = std::min(begin, row.begin);
        end = std::max(end, row.end);
    }
    for (long page = begin / PAGE; page * PAGE < end; page++) {
        const T* k = cache.key_page(sequence.pages[page], head);
        const T* v = cache.value_page(sequence.pages[page], head);
        const long tokens = std::min(PAGE, end - page * PAGE);
        if (rows <= 3) {  // each number is used once: not worth a copy
            attend_rows(state.data(), rows, k, v, page * PAGE, tokens, dim, scale, sums.data());
            continue;
        }
        for (long i = 0; i < dim * PAGE; i += 8) _mm256_storeu_ps(keys.data() + i, load8(k + i));
        for (long i = 0; i < dim * tokens; i += 8) _mm256_storeu_ps(values.data() + i, load8(v + i));
        attend_rows<float>(state.data(), rows, keys.data(), values.data(), page * PAGE, tokens, dim, scale,
                           sums.data());
    }
    for (long r = 0; r < rows; r++) {
        float* to = out + (sequence.first + from + r / group) * out_stride + (head * group + r % group) * dim;
        for (long d = 0; d < dim; d++) to[d] = sums[r * dim + d] / state[r].total;
    }
}

template <typename T>
void attention(const Cache<T>& cache, const float* q, long q_stride, long heads, const long* sequences,
               long sequence_count, const int32_t* pages, long pages_stride, long window, float scale, float* out) {
    struct Task { long sequence, head, from; };
    static thread_local std::vector<Task> tasks;
    tasks.clear();
    for (long s = 0; s < sequence_count; s++)
        for (long from = 0; from < sequences[4 * s + 1]; from += QUERY_TILE)
            for (long head = 0; head < cache.heads; head++) tasks.push_back({s, head, from});
    const Task* all = tasks.data();
    pool().each(tasks.size(), [&](long i) {
        const Task task = all[i];
        const long* n = sequences + 4 * task.sequence;
        const Sequence sequence{n[0], n[1], n[2], n[3], pages + task.sequence * pages_stride};
        attend(cache, sequence, task.head, task.from, std::min(QUERY_TILE, n[1] - task.from), q, q_stride,
               heads / cache.heads, window, scale, out, heads * cache.dim);
    });
}

void rotate(float* __restrict head, const float* __restrict cos, const float* __restrict sin, long rotated) {
    for (long i = 0; i < rotated / 2; i++) {
        const float a = head[i], b = head[i + rotated / 2];
        head[i] = a * cos[i] - b * sin[i];
        head[i + rotated / 2] = b * cos[i] + a * sin[i];
    }
}

template <typename T>
void rotate_and_store(const Cache<T>& cache, float* qkv, long tokens, long heads, const float* cos,
                      const float* sin, long rotated, const int64_t* slots) {
    const long dim = cache.dim, width = (heads + 2 * cache.heads) * dim;
    pool().each(tokens, [&](long t) {
        float* row = qkv + t * width;
        for (long h = 0; h < heads + cache.heads; h++)
            rotate(row + h * dim, cos + t * rotated / 2, sin + t * rotated / 2, rotated);
        const long page = slots[t] / PAGE, offset = slots[t] % PAGE;
        for (long h = 0; h < cache.heads; h++) {
            const float* k = row + (heads + h) * dim;
            const float* v = row + (heads + cache.heads + h) * dim;
            T* to_k = cache.key_page(page, h) + offset;
            T* to_v = cache.value_page(page, h) + offset * dim;
            for (long d = 0; d < dim; d++) {
                store1(to_k + d * PAGE, k[d]);
                store1(to_v + d, v[d]);
            }
        }
    });
}

// ---------------------------------------------------------------------------------------------
// Norm and activation.

void rms_norm(const float* x, const float* weight, float* y, long rows, long n, float eps) {
    pool().each(rows, [&](long r) {
        const float* from = x + r * n;
        float* to = y + r * n;
        __m256 squares = _mm256_setzero_ps();
        for (long i = 0; i < n; i += 8) {
            __m256 v = _mm256_loadu_ps(from + i);
            squares = _mm256_fmadd_ps(v, v, squares);
        }
        const __m256 factor = _mm256_set1_ps(1.f / std::sqrt(sum8(squares) / n + eps));
        for (long i = 0; i < n; i += 8)
            _mm256_storeu_ps(to + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(from + i), factor),
                                                   _mm256_loadu_ps(weight + i)));
    });
}

void gated_silu(const float* gate_up, float* y, long rows, long n) {
    pool().each(rows, [&](long r) {
        for (long i = 0; i < n; i += 8) {
            __m256 g = _mm256_loadu_ps(gate_up + r * 2 * n + i), u = _mm256_loadu_ps(gate_up + r * 2 * n + n + i);
            __m256 e = exp8(_mm256_min_ps(_mm256_sub_ps(_mm256_setzero_ps(), g), _mm256_set1_ps(88.f)));
            __m256 silu = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.f), e));
            _mm256_storeu_ps(y + r * n + i, _mm256_mul_ps(silu, u));
        }
    });
}

// ---------------------------------------------------------------------------------------------
// LoRA: y += B (A x) for each row with the adapter of that row.

struct Part {  // one original linear inside a fused one
    const half* b;  // (rank, out), the scaling folded in
    long rank, rank_offset, out, out_offset;
};

struct Lora {
    const half* a;  // (rank of all parts, in)
    long rank, part_count;
    Part parts[3];
};

constexpr long MAX_RANK_OF_PARTS = 3 * 256;
constexpr long LORA_SHARES = 4;    // parts of an adapter's first product that threads take in turn

// reduced[r] = A x[r] for R rows of one adapter, which share one read of A
template <int R>
void reduce(const Lora& lora, const float* x, long in, long begin, long end, float* reduced) {
    for (long i = begin; i < end; i++) {
        __m256 sums[R];
        for (int r = 0; r < R; r++) sums[r] = _mm256_setzero_ps();
        for (long k = 0; k < in; k += 8) {
            const __m256 a = load8(lora.a + i * in + k);
            for (int r = 0; r < R; r++) sums[r] = _mm256_fmadd_ps(_mm256_loadu_ps(x + r * in + k), a, sums[r]);
        }
        for (int r = 0; r < R; r++) reduced[r * MAX_RANK_OF_PARTS + i] = sum8(sums[r]);
    }
}

void expand(const Lora& lora, const float* reduced, float* y) {
    for (long p = 0; p < lora.part_count; p++) {
        const Part& part = lora.parts[p];
        float* to = y + part.out_offset;
        for (long n = 0; n < part.out; n += 8) {
            __m256 sum = _mm256_loadu_ps(to + n);
            for (long i = 0; i < part.rank; i++)
                sum = _mm256_fmadd_ps(_mm256_set1_ps(reduced[part.rank_offset + i]), load8(part.b + i * part.out + n),
                                      sum);
            _mm256_storeu_ps(to + n, sum);
        }
    }
}

// adapters: for each row the first Lora of its adapter, or null; index: which linear
void lora(const float* x, long rows, long in, const Lora* const* adapters, long index, float* y, long out) {
    static thread_local std::vector<float> buffer;
    static thread_local std::vector<long> starts;  // of runs of up to 4 rows that share an adapter
    buffer.resize(rows * MAX_RANK_OF_PARTS);
    starts.clear();
    for (long r = 0; r < rows;) {
        starts.push_back(r);
        const long first = r++;
        while (r < rows && r - first < 4 && adapters[r] == adapters[first]) r++;
    }
    starts.push_back(rows);
    float* reduced = buffer.data();
    const long* start = starts.data();
    pool().each((starts.size() - 1) * LORA_SHARES, [&](long i) {
        const long r = start[i / LORA_SHARES], height = start[i / LORA_SHARES + 1] - r, share = i % LORA_SHARES;
        if (!adapters[r]) return;
        const Lora& lora = adapters[r][index];
        const long begin = lora.rank * share / LORA_SHARES, end = lora.rank * (share + 1) / LORA_SHARES;
        float* h = reduced + r * MAX_RANK_OF_PARTS;
        switch (height) {
            case 1: reduce<1>(lora, x + r * in, in, begin, end, h); break;
            case 2: reduce<2>(lora, x + r * in, in, begin, end, h); break;
            case 3: reduce<3>(lora, x + r * in, in, begin, end, h); break;
            default: reduce<4>(lora, x + r * in, in, begin, end, h);
        }
    });
    pool().each(rows, [&](long r) {
        if (adapters[r]) expand(adapters[r][index], reduced + r * MAX_RANK_OF_PARTS, y + r * out);
    });
}

// ---------------------------------------------------------------------------------------------
// Whole blocks: norm, attention, norm, gated multilayer perceptron, each part added to its input.

struct Matrix {
    long bits, in, out;
    const void* codes;
    const half* scales;
    const half* mins;
    const float* bias;
};

struct Block {
    const float* input_norm;
    const float* mlp_norm;
    Matrix qkv, out, up, down;
    void* keys;
    void* values;
};

struct Shape {
    long hidden, heads, kv_heads, dim, rotated, window, halves;
    float eps;
};

struct Step {
    const float* cos;
    const float* sin;
    const int64_t* slots;
    const long* sequences;  // (count, 4): first query, queries, tokens before them, prefix
    long sequence_count;
    const int32_t* pages;
    long pages_stride;
    const Lora* const* adapters;  // or null
};

void apply(const Matrix& m, const float* x, long rows, float* y, bool add) {
    const Output output{y, m.out, m.bias, add};
    if (m.bits == 4) linear(Int4{(const uint8_t*)m.codes, m.scales, m.mins}, x, rows, m.in, output);
    else linear(Int8{(const int8_t*)m.codes, m.scales}, x, rows, m.in, output);
}

template <typename T>
void blocks(const Shape& shape, const Block* all, long count, float* hidden, long rows, const Step& step) {
    static thread_local std::vector<float> normed, qkv, seen, up, inner;
    normed.resize(rows * shape.hidden);
    qkv.resize(rows * (shape.heads + 2 * shape.kv_heads) * shape.dim);
    seen.resize(rows * shape.heads * shape.dim);
    const long width = all->down.in;
    up.resize(rows * 2 * width);
    inner.resize(rows * width);
    const float scale = 1.f / std::sqrt((float)shape.dim);
    auto apply_with_lora = [&](const Matrix& m, long index, const std::vector<float>& x, float* y, bool add) {
        apply(m, x.data(), rows, y, add);
        if (step.adapters) lora(x.data(), rows, m.in, step.adapters, index, y, m.out);
    };
    for (long i = 0; i < count; i++) {
        const Block& block = all[i];
        const Cache<T> cache{(T*)block.keys, (T*)block.values, shape.kv_heads, shape.dim};
        rms_norm(hidden, block.input_norm, normed.data(), rows, shape.hidden, shape.eps);
        apply_with_lora(block.qkv, 4 * i, normed, qkv.data(), false);
        rotate_and_store(cache, qkv.data(), rows, shape.heads, step.cos, step.sin, shape.rotated, step.slots);
        attention(cache, qkv.data(), (shape.heads + 2 * shape.kv_heads) * shape.dim, shape.heads, step.sequences,
                  step.sequence_count, step.pages, step.pages_stride, shape.window, scale, seen.data());
        apply_with_lora(block.out, 4 * i + 1, seen, hidden, true);
        rms_norm(hidden, block.mlp_norm, normed.data(), rows, shape.hidden, shape.eps);
        apply_with_lora(block.up, 4 * i + 2, normed, up.data(), false);
        gated_silu(up.data(), inner.data(), rows, width);
        apply_with_lora(block.down, 4 * i + 3, inner, hidden, true);
    }
}

}  // namespace

extern "C" {

void burnish_rms_norm(const float* x, const float* weight, float* y, long rows, long n, float eps) {
    rms_norm(x, weight, y, rows, n, eps);
}

void burnish_gated_silu(const float* gate_up, float* y, long rows, long n) { gated_silu(gate_up, y, rows, n); }

void burnish_linear_int4(const float* x, long rows, long in, const uint8_t* codes, const half* scales,
                         const half* mins, long out, const float* bias, float* y, int add) {
    linear(Int4{codes, scales, mins}, x, rows, in, Output{y, out, bias, add != 0});
}

void burnish_linear_int8(const float* x, long rows, long in, const int8_t* codes, const half* scales, long out,
                         const float* bias, float* y, int add) {
    linear(Int8{codes, scales}, x, rows, in, Output{y, out, bias, add != 0});
}

void burnish_rotate_and_store(float* qkv, long tokens, long heads, long kv_heads, long dim, const float* cos,
                              const float* sin, long rotated, const int64_t* slots, void* keys, void* values,
                              int halves) {
    if (halves)
        rotate_and_store(Cache<half>{(half*)keys, (half*)values, kv_heads, dim}, qkv, tokens, heads, cos, sin,
                         rotated, slots);
    else
        rotate_and_store(Cache<float>{(float*)keys, (float*)values, kv_heads, dim}, qkv, tokens, heads, cos, sin,
                         rotated, slots);
}

// sequences: (count, 4) of first query, queries, tokens before them, bidirectional prefix
void burnish_attention(const float* qkv, long heads, long kv_heads, long dim, const long* sequences,
                       long sequence_count, const int32_t* pages, long pages_stride, long window, float scale,
                       void* keys, void* values, int halves, float* out) {
    const long stride = (heads + 2 * kv_heads) * dim;
    if (halves)
        attention(Cache<half>{(half*)keys, (half*)values, kv_heads, dim}, qkv, stride, heads, sequences,
                  sequence_count, pages, pages_stride, window, scale, out);
    else
        attention(Cache<float>{(float*)keys, (float*)values, kv_heads, dim}, qkv, stride, heads, sequences,
                  sequence_count, pages, pages_stride, window, scale, out);
}

void burnish_lora(const float* x, long rows, long in, const Lora* const* adapters, long index, float* y, long out) {
    lora(x, rows, in, adapters, index, y, out);
}

void burnish_blocks(const Shape* shape, const Block* all, long count, float* hidden, long rows, const Step* step) {
    if (shape->halves) blocks<half>(*shape, all, count, hidden, rows, *step);
    else blocks<float>(*shape, all, count, hidden, rows, *step);
}

// Threads of later calls, the caller's included; there are never fewer than there were.
void burnish_start(long threads) { pool().start(threads); }

}  // extern "C"
