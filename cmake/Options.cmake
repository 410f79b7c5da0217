# a2sf_options: the compiler and linker flags of every target of this project; never exported.
add_library(a2sf_options INTERFACE)
target_compile_features(a2sf_options INTERFACE cxx_std_20)
set(cxx_warnings -Wall -Wextra -Wpedantic -Wshadow $<$<BOOL:${A2SF_WERROR}>:-Werror>)
target_compile_options(a2sf_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_warnings}>")
target_compile_options(a2sf_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra;$<$<BOOL:${A2SF_WERROR}>:-Werror=all-warnings>>")
# Assertions name their file as the repository does, whatever folder it was built in.
target_compile_options(a2sf_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=>"
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=>")
if(A2SF_SANITIZE)
  target_compile_options(a2sf_options INTERFACE
    -fsanitize=${A2SF_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(a2sf_options INTERFACE -fsanitize=${A2SF_SANITIZE})
endif()

# GCC 12 sees overflows in fmt and std::string at -O3 that are not there.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(a2sf_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wno-stringop-overflow;-Wno-restrict>")
  # In a unity build a source is included, and its anonymous namespace looks like a header's.
  if(CMAKE_UNITY_BUILD)
    target_compile_options(a2sf_options INTERFACE -Wno-subobject-linkage)
  endif()
  # Under sanitizers it sees members of a std::variant read that another alternative has.
  if(A2SF_SANITIZE)
    target_compile_options(a2sf_options INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()
