# What the library links. libllama is searched for in CMAKE_PREFIX_PATH first, then where tools/deps puts it.
set(a2sf_cache "$ENV{XDG_CACHE_HOME}")
if(a2sf_cache STREQUAL "")
  set(a2sf_cache "$ENV{HOME}/.cache")
endif()
string(APPEND a2sf_cache "/a2sf")
set(a2sf_pinned_llama "${a2sf_cache}/llama-0.3.36-2")

# What this build folder remembers of an earlier pin is forgotten.
cmake_path(IS_PREFIX a2sf_cache "${llama_DIR}" from_cache)
cmake_path(IS_PREFIX a2sf_pinned_llama "${llama_DIR}" is_pinned)
if(from_cache AND NOT is_pinned)
  unset(llama_DIR CACHE)
  unset(llama_LIBRARY CACHE)
  unset(ggml_DIR CACHE)
endif()

find_package(llama 0.5 CONFIG QUIET HINTS "${a2sf_pinned_llama}")
if(NOT llama_FOUND)
  message(FATAL_ERROR "libllama not found: run tools/deps, or name an installed copy with -DCMAKE_PREFIX_PATH=...")
endif()
message(STATUS "libllama: ${llama_DIR}")

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tl-expected REQUIRED)
find_package(hwy REQUIRED)
find_package(NLopt REQUIRED)
