// SPDX-License-Identifier: Apache-2.0
// The part of TensorFlow Lite's C interface that an external delegate meets.
//
// No wheel of a TFLite runtime ships these headers, so the structs are declared here, in the layout that the runtimes of
// TRIED_RUNTIMES (__init__.py) share on 64-bit systems; the assertions hold it fast. Names are TFLite's, shortened.
#pragma once

#include <cstddef>
#include <cstdint>

static_assert(sizeof(void*) == 8,
              "The Larq delegate needs a 64-bit system: on a Raspberry Pi install the 64-bit version of its system.");

namespace tflite_abi {

enum Status : int { kOk = 0, kError = 1 };
enum Type : int { kFloat32 = 1, kInt32 = 2, kUInt8 = 3, kBool = 6, kInt8 = 9 };
enum Allocation : int { kMmapRo = 1 };
enum QuantizationType : int { kAffineQuantization = 1 };
enum Padding : int { kPaddingSame = 1, kPaddingValid = 2 };
enum Activation : int { kActNone = 0, kActRelu = 1, kActReluN1To1 = 2, kActRelu6 = 3 };
enum BuiltinOperator : int {
  kAdd = 0,
  kAveragePool2d = 1,
  kConcatenation = 2,
  kConv2d = 3,
  kDepthToSpace = 5,
  kDequantize = 6,
  kSpaceToDepth = 26,
  kCustom = 32,
  kPad = 34,
  kQuantize = 114,
};
enum DelegateFlags : std::int64_t { kAllowDynamicTensors = 1 };

struct IntArray {
  int size;
  int data[1];  // `size` of them
};

struct FloatArray {
  int size;
  float data[1];
};

struct AffineQuantization {
  FloatArray* scale;
  IntArray* zero_point;
  std::int32_t quantized_dimension;
};

struct Delegate;

struct Tensor {
  Type type;
  void* data;
  IntArray* dims;
  struct {
    float scale;
    std::int32_t zero_point;
  } params;
  Allocation allocation_type;
  std::size_t bytes;
  const void* allocation;
  const char* name;
  Delegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    QuantizationType type;
    void* params;
  } quantization;
  void* sparsity;
  const IntArray* dims_signature;
};
static_assert(offsetof(Tensor, data) == 8 && offsetof(Tensor, dims) == 16 && offsetof(Tensor, params) == 24 &&
              offsetof(Tensor, allocation_type) == 32 && offsetof(Tensor, bytes) == 40 &&
              offsetof(Tensor, quantization) == 80 && sizeof(Tensor) == 112);

struct Node {
  IntArray* inputs;
  IntArray* outputs;
  IntArray* intermediates;
  IntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  Delegate* delegate;
  bool might_have_side_effect;
};
static_assert(offsetof(Node, user_data) == 32 && offsetof(Node, custom_initial_data_size) == 56 && sizeof(Node) == 80);

struct Context;

// Passed by value to ReplaceNodeSubsetsWithDelegateKernels, so its size is that of the newest form.
struct Registration {
  void* (*init)(Context*, const char* buffer, std::size_t length);
  void (*free)(Context*, void* buffer);
  Status (*prepare)(Context*, Node*);
  Status (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  std::int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  std::uint64_t inplace_operator;
};
static_assert(offsetof(Registration, builtin_code) == 40 && offsetof(Registration, custom_name) == 48 &&
              sizeof(Registration) == 88);

struct Context {
  std::size_t tensors_size;
  Status (*GetExecutionPlan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  Status (*ResizeTensor)(Context*, Tensor*, IntArray* new_size);  // takes `new_size` over
  void (*ReportError)(Context*, const char* format, ...);
  Status (*AddTensors)(Context*, int, int*);
  Status (*GetNodeAndRegistration)(Context*, int node, Node**, Registration**);
  Status (*ReplaceNodeSubsetsWithDelegateKernels)(Context*, Registration, const IntArray*, Delegate*);
  // More follows that a delegate like this one never touches.
};
static_assert(offsetof(Context, tensors) == 16 && offsetof(Context, ReplaceNodeSubsetsWithDelegateKernels) == 64);

struct DelegateParams {
  Delegate* delegate;
  IntArray* nodes_to_replace;
  IntArray* input_tensors;
  IntArray* output_tensors;
};

struct Delegate {
  void* data;
  Status (*Prepare)(Context*, Delegate*);
  void* copy_from_buffer_handle;
  void* copy_to_buffer_handle;
  void* free_buffer_handle;
  std::int64_t flags;
  void* opaque_delegate_builder;
};
static_assert(offsetof(Delegate, flags) == 40 && sizeof(Delegate) == 56);

struct AddParams {
  Activation activation;
};

struct ConvParams {
  Padding padding;
  int stride_width;
  int stride_height;
  Activation activation;
  int dilation_width_factor;
  int dilation_height_factor;
};

struct ConcatenationParams {
  int axis;
  Activation activation;
};

struct BlockParams {  // of DEPTH_TO_SPACE and SPACE_TO_DEPTH
  std::int32_t block_size;
};

struct PoolParams {
  Padding padding;
  int stride_width;
  int stride_height;
  int filter_width;
  int filter_height;
  Activation activation;
};

}  // namespace tflite_abi
