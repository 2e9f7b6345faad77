// The part of TensorFlow's C API that hw3tf uses, declared here so that the
// build needs no TensorFlow: these functions are ABI-stable, and one binary
// runs on 2.16 and later. Defining HW3TF_TF_HEADERS takes the installed headers
// instead; a test compiles the sources both ways, so that a disagreement is
// found by the compiler.

#pragma once

#if defined(HW3TF_TF_HEADERS)

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_buffer.h"
#include "tensorflow/c/tf_datatype.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

#else

#include <cstddef>
#include <cstdint>

extern "C" {

typedef struct TF_DimensionHandle TF_DimensionHandle;
typedef struct TF_KernelBuilder TF_KernelBuilder;
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_OpKernelConstruction TF_OpKernelConstruction;
typedef struct TF_OpKernelContext TF_OpKernelContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef unsigned char TF_Bool;

typedef enum TF_DataType {
  TF_FLOAT = 1,
  TF_DOUBLE = 2,
  TF_INT32 = 3,
  TF_UINT8 = 4,
  TF_INT16 = 5,
  TF_INT8 = 6,
  TF_INT64 = 9,
  TF_BOOL = 10,
  TF_BFLOAT16 = 14,
  TF_HALF = 19,
} TF_DataType;

typedef enum TSL_Code {
  TSL_OK = 0,
  TSL_INVALID_ARGUMENT = 3,
  TSL_RESOURCE_EXHAUSTED = 8,
  TSL_INTERNAL = 13,
} TF_Code;
#define TF_OK TSL_OK
#define TF_INVALID_ARGUMENT TSL_INVALID_ARGUMENT
#define TF_RESOURCE_EXHAUSTED TSL_RESOURCE_EXHAUSTED
#define TF_INTERNAL TSL_INTERNAL

typedef struct TF_Buffer {
  const void* data;
  size_t length;
  void (*data_deallocator)(void* data, size_t length);
} TF_Buffer;

TF_Status* TF_NewStatus();
void TF_DeleteStatus(TF_Status*);
void TF_SetStatus(TF_Status*, TF_Code, const char*);
TF_Code TF_GetCode(const TF_Status*);
const char* TF_Message(const TF_Status*);

TF_Buffer* TF_NewBuffer();
void TF_DeleteBuffer(TF_Buffer*);

int TF_NumDims(const TF_Tensor*);
int64_t TF_Dim(const TF_Tensor*, int);
void* TF_TensorData(const TF_Tensor*);
void TF_DeleteTensor(TF_Tensor*);

TF_OpDefinitionBuilder* TF_NewOpDefinitionBuilder(const char*);
void TF_OpDefinitionBuilderAddAttr(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderAddInput(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderAddOutput(TF_OpDefinitionBuilder*, const char*);
void TF_OpDefinitionBuilderSetShapeInferenceFunction(
    TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*));
void TF_RegisterOpDefinition(TF_OpDefinitionBuilder*, TF_Status*);

TF_DimensionHandle* TF_NewDimensionHandle();
void TF_DeleteDimensionHandle(TF_DimensionHandle*);
int TF_DimensionHandleValueKnown(TF_DimensionHandle*);
int64_t TF_DimensionHandleValue(TF_DimensionHandle*);

TF_ShapeHandle* TF_NewShapeHandle();
void TF_DeleteShapeHandle(TF_ShapeHandle*);
void TF_ShapeInferenceContextGetInput(TF_ShapeInferenceContext*, int,
                                      TF_ShapeHandle*, TF_Status*);
void TF_ShapeInferenceContextSetOutput(TF_ShapeInferenceContext*, int,
                                       TF_ShapeHandle*, TF_Status*);
int TF_ShapeInferenceContextRankKnown(TF_ShapeInferenceContext*,
                                      TF_ShapeHandle*);
int64_t TF_ShapeInferenceContextRank(TF_ShapeInferenceContext*,
                                     TF_ShapeHandle*);
void TF_ShapeInferenceContextDim(TF_ShapeInferenceContext*, TF_ShapeHandle*,
                                 int64_t, TF_DimensionHandle*);
void TF_ShapeInferenceContextSetUnknownShape(TF_ShapeInferenceContext*,
                                             TF_Status*);
void TF_ShapeInferenceContextWithRank(TF_ShapeInferenceContext*,
                                      TF_ShapeHandle*, int64_t, TF_ShapeHandle*,
                                      TF_Status*);
void TF_ShapeInferenceContextSubshape(TF_ShapeInferenceContext*,
                                      TF_ShapeHandle*, int64_t, int64_t,
                                      TF_ShapeHandle*, TF_Status*);
TF_ShapeHandle* TF_ShapeInferenceContextVectorFromSize(
    TF_ShapeInferenceContext*, size_t);
void TF_ShapeInferenceContextConcatenateShapes(TF_ShapeInferenceContext*,
                                               TF_ShapeHandle*, TF_ShapeHandle*,
                                               TF_ShapeHandle*, TF_Status*);

TF_KernelBuilder* TF_NewKernelBuilder(const char*, const char*,
                                      void* (*)(TF_OpKernelConstruction*),
                                      void (*)(void*, TF_OpKernelContext*),
                                      void (*)(void*));
void TF_KernelBuilder_TypeConstraint(TF_KernelBuilder*, const char*,
                                     TF_DataType, TF_Status*);
void TF_RegisterKernelBuilder(const char*, TF_KernelBuilder*, TF_Status*);
void TF_OpKernelConstruction_GetAttrType(TF_OpKernelConstruction*, const char*,
                                         TF_DataType*, TF_Status*);
void TF_OpKernelConstruction_GetAttrInt64(TF_OpKernelConstruction*, const char*,
                                          int64_t*, TF_Status*);
void TF_OpKernelConstruction_GetAttrSize(TF_OpKernelConstruction*, const char*,
                                         int32_t*, int32_t*, TF_Status*);
void TF_OpKernelConstruction_GetAttrString(TF_OpKernelConstruction*,
                                           const char*, char*, size_t,
                                           TF_Status*);
void TF_OpKernelConstruction_GetAttrBool(TF_OpKernelConstruction*, const char*,
                                         TF_Bool*, TF_Status*);
void TF_OpKernelConstruction_Failure(TF_OpKernelConstruction*, TF_Status*);
void TF_OpKernelContext_Failure(TF_OpKernelContext*, TF_Status*);
void TF_GetInput(TF_OpKernelContext*, int, TF_Tensor**, TF_Status*);
TF_Tensor* TF_AllocateOutput(TF_OpKernelContext*, int, TF_DataType,
                             const int64_t*, int, size_t, TF_Status*);
TF_Tensor* TF_ForwardInputOrAllocateOutput(TF_OpKernelContext*, const int*, int,
                                           int, const int64_t*, int, int*,
                                           TF_Status*);
int64_t TF_StepId(TF_OpKernelContext*);
void TF_GetSerializedConfigProto(TF_OpKernelContext*, TF_Buffer*, TF_Status*);

}  // extern "C"

#endif  // HW3TF_TF_HEADERS
