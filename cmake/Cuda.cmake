# The CUDA device: A2SF_CUDA is off from here on where no compiler for it is found. The runtime is linked statically, so that a
# program starts on machines without a GPU too.
if(A2SF_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  set(a2sf_no_cuda "no compiler found (nvcc)")
  if(CMAKE_CUDA_COMPILER)
    # Ampere and what runs its code, and Hopper with what it alone has.
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
    endif()
    enable_language(CUDA)
    set(a2sf_no_cuda "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than 12")
  endif()
  if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12)
    string(APPEND CMAKE_CUDA_FLAGS " -std=c++20")  # CMake 3.25 does not know that nvcc does
    # Named again by packages, they would come before the compiler's own.
    list(APPEND CMAKE_CUDA_IMPLICIT_INCLUDE_DIRECTORIES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
    find_package(CUDAToolkit REQUIRED)
    message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION}")
  else()
    message(STATUS "CUDA: ${a2sf_no_cuda}; --device cuda is not built")
    set(A2SF_CUDA OFF)
  endif()
endif()
