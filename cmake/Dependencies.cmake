# What the library links. libllama is searched for in CMAKE_PREFIX_PATH first, then where tools/deps puts it.
if(DEFINED ENV{XDG_CACHE_HOME})
  set(a2sf_cache "$ENV{XDG_CACHE_HOME}/a2sf")
else()
  set(a2sf_cache "$ENV{HOME}/.cache/a2sf")
endif()

find_package(llama 0.5 CONFIG QUIET HINTS "${a2sf_cache}/llama-0.3.36")
if(NOT llama_FOUND)
  message(FATAL_ERROR "libllama not found: run tools/deps, or name an installed copy with -DCMAKE_PREFIX_PATH=...")
endif()
message(STATUS "libllama: ${llama_DIR}")

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tl-expected REQUIRED)
find_package(hwy REQUIRED)
