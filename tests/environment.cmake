# Read by ctest itself: what every test sees unless the caller has set it.
foreach(setting "GGML_NO_BACKTRACE=1" "RC_PARAMS=seed=20407")
  string(REGEX MATCH "^([^=]+)=(.*)$" _ "${setting}")
  if(NOT DEFINED ENV{${CMAKE_MATCH_1}})
    set(ENV{${CMAKE_MATCH_1}} "${CMAKE_MATCH_2}")
  endif()
endforeach()
