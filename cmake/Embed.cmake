# a2sf_embed(VARIABLE FILE): the file's text as a literal of C++; the build is configured anew when the file changes.
function(a2sf_embed variable file)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(READ "${file}" text)
  set(${variable} "R\"text(${text})text\"" PARENT_SCOPE)
endfunction()
