# zoo_architectures(RESULT NVCC): GPUs to compile for, those of this list that the compiler knows.
#
# Machine code for each, and intermediate code of the oldest, which any other GPU compiles when it
# loads the library. The list is ARCHITECTURES in build.py.
function(zoo_architectures result nvcc)
  execute_process(COMMAND ${nvcc} --list-gpu-arch OUTPUT_VARIABLE known ERROR_VARIABLE said)
  set(found)
  foreach(architecture 75 80 86 87 89 90 100 120)
    if("${known}" MATCHES "compute_${architecture}([^0-9a-z]|$)")
      if(found)
        list(APPEND found ${architecture}-real)
      else()
        list(APPEND found ${architecture})
      endif()
    endif()
  endforeach()
  if(NOT found)
    message(FATAL_ERROR "${nvcc} --list-gpu-arch lists no GPU that the plugin is for: ${known}${said}")
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()
