# `find_package(a2sf)` from an install prefix: the library, its headers, the program and the package files.
include(CMakePackageConfigHelpers)

set(a2sf_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/a2sf")
install(TARGETS a2sf EXPORT a2sfTargets)
if(TARGET a2sf_program)
  install(TARGETS a2sf_program)
endif()
install(DIRECTORY include/a2sf DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.h")
install(EXPORT a2sfTargets NAMESPACE a2sf:: DESTINATION "${a2sf_package_dir}")

configure_package_config_file(cmake/a2sfConfig.cmake.in a2sfConfig.cmake INSTALL_DESTINATION "${a2sf_package_dir}")
write_basic_package_version_file(a2sfConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/a2sfConfig.cmake" "${PROJECT_BINARY_DIR}/a2sfConfigVersion.cmake"
        DESTINATION "${a2sf_package_dir}")
