# `find_package(a2sf)` from an install prefix that may be moved: the library, its headers, the program, the package files,
# and what they are linked with that Debian does not have.
include(CMakePackageConfigHelpers)

set(a2sf_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/a2sf")
set(a2sf_licence_dir "${CMAKE_INSTALL_DATADIR}/doc/a2sf")
install(TARGETS a2sf EXPORT a2sfTargets)
if(TARGET a2sf_program)
  install(TARGETS a2sf_program)
endif()
install(DIRECTORY include/a2sf DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(EXPORT a2sfTargets NAMESPACE a2sf:: DESTINATION "${a2sf_package_dir}")
install(FILES LICENSE DESTINATION "${a2sf_licence_dir}")

# The archives of the pinned libllama go along, in a folder where no other libllama is; no public header needs its headers.
# A libllama that was named with CMAKE_PREFIX_PATH stays a dependency, to be named again by whoever uses the package.
set(a2sf_archives_dir "${CMAKE_INSTALL_LIBDIR}/a2sf")
set(a2sf_archives "")
cmake_path(IS_PREFIX a2sf_pinned_llama "${llama_DIR}" is_pinned)
if(is_pinned)
  set(a2sf_archives llama ggml ggml-cpu ggml-base)
  foreach(archive IN LISTS a2sf_archives)
    install(FILES "${LLAMA_LIB_DIR}/lib${archive}.a" DESTINATION "${a2sf_archives_dir}")
  endforeach()
  install(FILES "${a2sf_pinned_llama}/LICENSE" DESTINATION "${a2sf_licence_dir}" RENAME LICENSE.llama.cpp)
endif()

# Headers of these are compiled into what is installed.
foreach(package libboost1.81-dev libcli11-dev libexpected-dev libfmt-dev libhwy-dev nlohmann-json3-dev)
  install(FILES "/usr/share/doc/${package}/copyright" DESTINATION "${a2sf_licence_dir}" RENAME "LICENSE.${package}" OPTIONAL)
endforeach()

configure_package_config_file(cmake/a2sfConfig.cmake.in a2sfConfig.cmake INSTALL_DESTINATION "${a2sf_package_dir}"
                              PATH_VARS a2sf_archives_dir)
write_basic_package_version_file(a2sfConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/a2sfConfig.cmake" "${PROJECT_BINARY_DIR}/a2sfConfigVersion.cmake"
        DESTINATION "${a2sf_package_dir}")
