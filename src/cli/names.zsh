# The names of running containers, for the commands that take one.
_subuidless_names() {
    local -a names
    names=(${(f)"$(_call_program names subuidless ps 2>/dev/null | awk 'NR > 1 { print $1 }')"})
    compadd -a names
}

