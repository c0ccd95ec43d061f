// Linear layers whose weights are 8 or 4 bits in groups of 32 inputs, with activations rounded to 8 bits in the same groups.
// core/quantization/grouped.py calls them. How the weights lie:
//   weight  [outputs / 16][inputs / 32] blocks. A block of 8 bits is 8 vectors of 16 outputs x 4 inputs, each byte w + 128;
//           one of 4 bits is 4 such vectors, low halves of their bytes for inputs 0-15 of the group, high halves for 16-31.
//   scale   [outputs / 16][inputs / 32][16] 16-bit floats.
//   shift   as scale, for 4 bits only: a weight is scale * nibble + shift. Of 8 bits it is scale * (byte - 128).
// One vpdpbusd then multiplies 64 weights with 4 activations spread to all lanes, and no lane is ever added to another.
// Processors without AVX-512 VNNI do the same in plain loops.
#include <omp.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define VNNI 1
#include <immintrin.h>
#else
#define VNNI 0
#endif

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace {

constexpr int LANES = 16;  // output rows side by side
constexpr int GROUP = 32;  // inputs that share a scale
constexpr int AHEAD = 4096;  // bytes of weights fetched ahead
constexpr int MOST = 4;      // rows of activations that share one reading of the weights

struct Weights {
  const uint8_t* packed;
  const uint16_t* scale;
  const uint16_t* shift;
  int inputs, outputs;
  int groups() const { return (inputs + GROUP - 1) / GROUP; }
  int blocks() const { return (outputs + LANES - 1) / LANES; }
};

// Up to MOST rows of activations, quantised: [rows][groups * GROUP] values, [rows][groups] scales and sums of the values.
struct Activations {
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  int groups = 0;
  void resize(int many) {
    groups = many;
    values.resize(size_t(MOST) * many * GROUP);
    scales.resize(size_t(MOST) * many);
    sums.resize(size_t(MOST) * many);
  }
};

inline float from_bf16(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float half(uint16_t bits) { return c10::detail::fp16_ieee_to_fp32_value(bits); }
inline uint16_t to_half(float value) { return c10::detail::fp16_ieee_from_fp32_value(value); }

template <typename T>
inline float number_at(const T* x, int64_t at) {
  if constexpr (sizeof(T) == 2) return from_bf16(x[at]);
  else return x[at];
}

template <typename T>
inline void put(T* y, int64_t at, float value) {
  if constexpr (sizeof(T) == 2) y[at] = to_bf16(value);
  else y[at] = value;
}

#if VNNI

inline __mmask16 first(int many) { return many >= 16 ? 0xffff : many <= 0 ? 0 : __mmask16((1 << many) - 1); }

inline __m512 load(const float* x, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, x); }
inline __m512 load(const uint16_t* x, __mmask16 mask) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16));
}
inline void store(float* y, __mmask16 mask, __m512 value) { _mm512_mask_storeu_ps(y, mask, value); }
inline void store(uint16_t* y, __mmask16 mask, __m512 value) {
  __m512i bits = _mm512_castps_si512(value);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  bits = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  _mm256_mask_storeu_epi16(y, mask, _mm512_cvtepi32_epi16(bits));
}
inline __m512 halves(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

template <typename T>
void quantize(const T* x, int inputs, Activations& into, int row) {
  const __m512i sign = _mm512_set1_epi32(0x7fffffff);
  for (int g = 0; g < into.groups; ++g) {
    int left = inputs - g * GROUP;
    __m512 a = load(x + g * GROUP, first(left)), b = load(x + g * GROUP + 16, first(left - 16));
    __m512 big = _mm512_max_ps(_mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(a), sign)),
                               _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(b), sign)));
    float most = _mm512_reduce_max_ps(big);
    __m512 inverse = _mm512_set1_ps(most > 0 ? 127.0f / most : 0.0f);
    __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    auto* to = reinterpret_cast<__m128i*>(&into.values[size_t(row * into.groups + g) * GROUP]);
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128(to + 1, _mm512_cvtepi32_epi8(qb));
    into.scales[row * into.groups + g] = most / 127.0f;
    into.sums[row * into.groups + g] = _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
  }
}

inline __m512i four(const Activations& x, int at, int k) {
  int32_t bytes;
  std::memcpy(&bytes, &x.values[size_t(at) * GROUP + 4 * k], 4);
  return _mm512_set1_epi32(bytes);
}

// Outputs of one block of 16 rows of weights, for M rows of activations.
template <int BITS, int M, typename T>
void block(const Weights& w, int number, const Activations& x, T* y, int64_t stride) {
  const int groups = x.groups;
  const uint8_t* at = w.packed + size_t(number) * groups * GROUP * LANES * BITS / 8;
  const size_t scales = size_t(number) * groups * LANES;
  const __m512i low = _mm512_set1_epi8(15);
  __m512 out[M];
  for (int m = 0; m < M; ++m) out[m] = _mm512_setzero_ps();
  for (int g = 0; g < groups; ++g) {
    __m512i sum[M];
    for (int m = 0; m < M; ++m) sum[m] = BITS == 8 ? _mm512_set1_epi32(-128 * x.sums[m * groups + g]) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int k = 0; k < BITS; ++k) {
      // the processor's own prefetching ends with a page and begins anew: 10 to 25 % slower with weights that fill no cache
      _mm_prefetch(reinterpret_cast<const char*>(at + k * 64 + AHEAD), _MM_HINT_T0);
      __m512i bytes = _mm512_loadu_si512(at + k * 64);
      for (int m = 0; m < M; ++m) {
        if (BITS == 8) {
          sum[m] = _mm512_dpbusd_epi32(sum[m], bytes, four(x, m * groups + g, k));
        } else {
          sum[m] = _mm512_dpbusd_epi32(sum[m], _mm512_and_si512(bytes, low), four(x, m * groups + g, k));
          __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
          sum[m] = _mm512_dpbusd_epi32(sum[m], high, four(x, m * groups + g, k + 4));
        }
      }
    }
    at += BITS * 64;
    __m512 scale = halves(w.scale + scales + g * LANES);
    __m512 shift = BITS == 4 ? halves(w.shift + scales + g * LANES) : _mm512_setzero_ps();
    for (int m = 0; m < M; ++m) {
      __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[m]), scale);
      if (BITS == 4) product = _mm512_fmadd_ps(shift, _mm512_set1_ps(float(x.sums[m * groups + g])), product);
      out[m] = _mm512_fmadd_ps(product, _mm512_set1_ps(x.scales[m * groups + g]), out[m]);
    }
  }
  for (int m = 0; m < M; ++m) store(y + m * stride, first(w.outputs - number * LANES), out[m]);
}

#else

template <typename T>
void quantize(const T* x, int inputs, Activations& into, int row) {
  for (int g = 0; g < into.groups; ++g) {
    int many = std::min(GROUP, inputs - g * GROUP);
    float most = 0;
    for (int i = 0; i < many; ++i) most = std::max(most, std::fabs(number_at(x, g * GROUP + i)));
    float inverse = most > 0 ? 127.0f / most : 0.0f;
    int32_t sum = 0;
    for (int i = 0; i < GROUP; ++i) {
      int value = i < many ? int(std::nearbyint(number_at(x, g * GROUP + i) * inverse)) : 0;
      into.values[size_t(row * into.groups + g) * GROUP + i] = int8_t(value);
      sum += value;
    }
    into.scales[row * into.groups + g] = most / 127.0f;
    into.sums[row * into.groups + g] = sum;
  }
}

template <int BITS, int M, typename T>
void block(const Weights& w, int number, const Activations& x, T* y, int64_t stride) {
  const int groups = x.groups;
  const uint8_t* at = w.packed + size_t(number) * groups * GROUP * LANES * BITS / 8;
  float out[M][LANES] = {};
  for (int g = 0; g < groups; ++g, at += BITS * 64) {
    for (int m = 0; m < M; ++m) {
      const int8_t* values = &x.values[size_t(m * groups + g) * GROUP];
      int32_t sum[LANES] = {};
      for (int k = 0; k < BITS; ++k)
        for (int lane = 0; lane < LANES; ++lane)
          for (int i = 0; i < 4; ++i) {
            int byte = at[k * 64 + lane * 4 + i];
            if (BITS == 8) sum[lane] += (byte - 128) * values[4 * k + i];
            else sum[lane] += (byte & 15) * values[4 * k + i] + (byte >> 4) * values[16 + 4 * k + i];
          }
      for (int lane = 0; lane < LANES; ++lane) {
        size_t place = (size_t(number) * groups + g) * LANES + lane;
        float product = half(w.scale[place]) * float(sum[lane]);
        if (BITS == 4) product += half(w.shift[place]) * float(x.sums[m * groups + g]);
        out[m][lane] += product * x.scales[m * groups + g];
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int lane = 0; lane < LANES && number * LANES + lane < w.outputs; ++lane) put(y, m * stride + lane, out[m][lane]);
}

#endif

template <int BITS, typename T>
void multiply(const T* x, const Weights& w, T* y, int64_t rows) {
#pragma omp parallel
  {
    static thread_local Activations quantized;
    quantized.resize(w.groups());
    const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
    const int begin = int(w.blocks() * me / all), end = int(w.blocks() * (me + 1) / all);
    for (int64_t row = 0; row < rows; row += MOST) {
      const int many = int(std::min<int64_t>(MOST, rows - row));
      // every thread for itself: waiting for another would take longer
      for (int m = 0; m < many; ++m) quantize(x + (row + m) * w.inputs, w.inputs, quantized, m);
      for (int number = begin; number < end; ++number) {
        T* to = y + row * w.outputs + int64_t(number) * LANES;
        switch (many) {
          case 1: block<BITS, 1>(w, number, quantized, to, w.outputs); break;
          case 2: block<BITS, 2>(w, number, quantized, to, w.outputs); break;
          case 3: block<BITS, 3>(w, number, quantized, to, w.outputs); break;
          default: block<BITS, 4>(w, number, quantized, to, w.outputs);
        }
      }
    }
  }
}

Weights weights_of(const Tensor& weight, const Tensor& scale, const Tensor& shift, int64_t inputs, int64_t outputs) {
  return {static_cast<const uint8_t*>(weight.data_ptr()), static_cast<const uint16_t*>(scale.data_ptr()),
          static_cast<const uint16_t*>(shift.data_ptr()), int(inputs), int(outputs)};
}

// x [rows, inputs], float32 or bfloat16 and contiguous -> [rows, outputs] of the same type.
Tensor grouped_linear(Tensor x, Tensor weight, Tensor scale, Tensor shift, int64_t outputs, int64_t bits) {
  const Weights w = weights_of(weight, scale, shift, x.size(1), outputs);
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::BFloat16 || x.scalar_type() == ScalarType::Float, "x is neither float32 nor bfloat16");
  STD_TORCH_CHECK(weight.numel() == int64_t(w.blocks()) * w.groups() * GROUP * LANES * bits / 8, "weight is not of this size");
  Tensor y = torch::stable::new_empty(x, {x.size(0), outputs});
  if (x.scalar_type() == ScalarType::BFloat16) {
    auto* from = static_cast<const uint16_t*>(x.data_ptr());
    auto* to = static_cast<uint16_t*>(y.data_ptr());
    bits == 8 ? multiply<8>(from, w, to, x.size(0)) : multiply<4>(from, w, to, x.size(0));
  } else {
    auto* from = static_cast<const float*>(x.data_ptr());
    auto* to = static_cast<float*>(y.data_ptr());
    bits == 8 ? multiply<8>(from, w, to, x.size(0)) : multiply<4>(from, w, to, x.size(0));
  }
  return y;
}

template <int BITS>
void expand(const Weights& w, uint16_t* y) {
#pragma omp parallel for
  for (int number = 0; number < w.blocks(); ++number) {
    const int groups = w.groups(), rows = std::min(LANES, w.outputs - number * LANES);
    for (int g = 0; g < groups; ++g) {
      const size_t place = size_t(number) * groups + g;
      const uint8_t* at = w.packed + place * GROUP * LANES * BITS / 8;
      const int many = std::min(GROUP, w.inputs - g * GROUP);
#if VNNI
      alignas(64) uint8_t tile[LANES * GROUP];
      const __m512i rows_apart = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                    _mm512_set1_epi32(GROUP));
      const __m512i low = _mm512_set1_epi8(15);
      for (int k = 0; k < BITS; ++k) {
        __m512i bytes = _mm512_loadu_si512(at + k * 64);
        __m512i near = BITS == 8 ? bytes : _mm512_and_si512(bytes, low);
        _mm512_i32scatter_epi32(tile + 4 * k, rows_apart, near, 1);
        if (BITS == 4) {
          __m512i far = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
          _mm512_i32scatter_epi32(tile + 16 + 4 * k, rows_apart, far, 1);
        }
      }
      for (int row = 0; row < rows; ++row) {
        const __m512 scale = _mm512_set1_ps(_cvtsh_ss(w.scale[place * LANES + row]));
        const __m512 shift = BITS == 4 ? _mm512_set1_ps(_cvtsh_ss(w.shift[place * LANES + row]))
                                       : _mm512_mul_ps(scale, _mm512_set1_ps(-128.0f));
        for (int half = 0; half < 2; ++half) {
          __m128i sixteen = _mm_load_si128(reinterpret_cast<const __m128i*>(tile + row * GROUP + 16 * half));
          __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen)), scale, shift);
          store(y + int64_t(number * LANES + row) * w.inputs + g * GROUP + 16 * half, first(many - 16 * half), value);
        }
      }
#else
      for (int row = 0; row < rows; ++row)
        for (int i = 0; i < many; ++i) {
          const int k = i / 4, byte = at[(BITS == 8 ? k : k % 4) * 64 + row * 4 + i % 4];
          const float scale = half(w.scale[place * LANES + row]);
          const float value = BITS == 8 ? scale * float(byte - 128)
                                        : scale * float(k < 4 ? byte & 15 : byte >> 4) + half(w.shift[place * LANES + row]);
          y[int64_t(number * LANES + row) * w.inputs + g * GROUP + i] = to_bf16(value);
        }
#endif
    }
  }
}

// The weights in bfloat16, [outputs, inputs], for products with many rows, which the matrix units do better.
// ``like`` is any bfloat16 tensor.
Tensor grouped_weight(Tensor weight, Tensor scale, Tensor shift, Tensor like, int64_t inputs, int64_t outputs, int64_t bits) {
  const Weights w = weights_of(weight, scale, shift, inputs, outputs);
  Tensor y = torch::stable::new_empty(like, {outputs, inputs});
  auto* to = static_cast<uint16_t*>(y.data_ptr());
  bits == 8 ? expand<8>(w, to) : expand<4>(w, to);
  return y;
}

// One over the scale; 0 where it is too small for that.
inline float inverse_of(float scale) {
  const float inverse = 1.0f / scale;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// One group of weights as 8-bit integers around 128; a narrower range is of no use with so many levels.
void round_group(const float (&v)[GROUP], uint8_t (&q)[GROUP], uint16_t& scale) {
  float most = 0;
  for (float value : v) most = std::max(most, std::fabs(value));
  scale = to_half(most / 127.0f);
  const float inverse = inverse_of(half(scale));
  for (int i = 0; i < GROUP; ++i) q[i] = uint8_t(128 + std::clamp(int(std::nearbyint(v[i] * inverse)), -127, 127));
}

// One group of weights as nibbles: of the ranges that are tried, the one with the least error.
void round_group(const float (&v)[GROUP], uint8_t (&q)[GROUP], uint16_t& scale, uint16_t& shift) {
  constexpr float PARTS[] = {1.0f, 0.95f, 0.9f, 0.85f};
  float low = v[0], high = v[0], best = INFINITY;
  for (float value : v) low = std::min(low, value), high = std::max(high, value);
  const float middle = (low + high) / 2, reach = (high - low) / 2;
  for (float part : PARTS) {
    const uint16_t its_scale = to_half(reach * part * 2 / 15), its_shift = to_half(middle - reach * part);
    const float step = half(its_scale), base = half(its_shift), inverse = inverse_of(step);
    float levels[GROUP], errors[GROUP], error = 0;
    for (int i = 0; i < GROUP; ++i) {
      levels[i] = std::min(15.0f, std::max(0.0f, std::nearbyint((v[i] - base) * inverse)));
      const float off = levels[i] * step + base - v[i];
      errors[i] = off * off;
    }
    for (float one : errors) error += one;
    if (error < best) {
      best = error, scale = its_scale, shift = its_shift;
      for (int i = 0; i < GROUP; ++i) q[i] = uint8_t(levels[i]);
    }
  }
}

template <int BITS, typename T>
void pack(const T* weight, int inputs, int outputs, uint8_t* packed, uint16_t* scale, uint16_t* shift) {
  const int groups = (inputs + GROUP - 1) / GROUP, blocks = (outputs + LANES - 1) / LANES;
#pragma omp parallel for
  for (int number = 0; number < blocks; ++number) {
    for (int g = 0; g < groups; ++g) {
      const size_t place = size_t(number) * groups + g;
      uint8_t* to = packed + place * GROUP * LANES * BITS / 8;
      for (int row = 0; row < LANES; ++row) {
        float v[GROUP] = {};
        uint8_t q[GROUP] = {};
        if (number * LANES + row < outputs)
          for (int i = 0; i < std::min(GROUP, inputs - g * GROUP); ++i)
            v[i] = number_at(weight, int64_t(number * LANES + row) * inputs + g * GROUP + i);
        if constexpr (BITS == 8) round_group(v, q, scale[place * LANES + row]);
        else round_group(v, q, scale[place * LANES + row], shift[place * LANES + row]);
        for (int i = 0; i < GROUP * BITS / 8; ++i)
          to[i / 4 * 64 + row * 4 + i % 4] = BITS == 8 ? q[i] : uint8_t(q[i] | q[(i + 16) % GROUP] << 4);
      }
    }
  }
}

// A weight [outputs, inputs], float32 or bfloat16 and contiguous, into the form above. ``shift`` is empty for 8 bits.
void grouped_quantize(Tensor weight, Tensor packed, Tensor scale, Tensor shift, int64_t bits) {
  const int outputs = int(weight.size(0)), inputs = int(weight.size(1));
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::BFloat16 || weight.scalar_type() == ScalarType::Float, "the weight is neither float32 nor bfloat16");
  auto* to = static_cast<uint8_t*>(packed.data_ptr());
  auto *scales = static_cast<uint16_t*>(scale.data_ptr()), *shifts = static_cast<uint16_t*>(shift.data_ptr());
  const auto from = [&](auto* x) { bits == 8 ? pack<8>(x, inputs, outputs, to, scales, shifts) : pack<4>(x, inputs, outputs, to, scales, shifts); };
  if (weight.scalar_type() == ScalarType::BFloat16) from(static_cast<const uint16_t*>(weight.data_ptr()));
  else from(static_cast<const float*>(weight.data_ptr()));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tickscope, library) {
  library.def("grouped_quantize(Tensor weight, Tensor(a!) packed, Tensor(b!) scale, Tensor(c!) shift, int bits) -> ()");
  library.def("grouped_linear(Tensor x, Tensor weight, Tensor scale, Tensor shift, int outputs, int bits) -> Tensor");
  library.def(
      "grouped_weight(Tensor weight, Tensor scale, Tensor shift, Tensor like, int inputs, int outputs, int bits) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tickscope, CPU, library) {
  library.impl("grouped_quantize", TORCH_BOX(&grouped_quantize));
  library.impl("grouped_linear", TORCH_BOX(&grouped_linear));
  library.impl("grouped_weight", TORCH_BOX(&grouped_weight));
}
