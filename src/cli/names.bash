
# The names of running containers, for the commands that take one.
_subuidless_with_names() {
    _subuidless "$@"
    local word=${COMP_WORDS[COMP_CWORD]} names name
    case ${COMP_WORDS[1]} in exec | kill | logs) ;; *) return ;; esac
    ((COMP_CWORD > 1)) && [[ $word != -* ]] || return 0
    names=$("${COMP_WORDS[0]}" ps 2>/dev/null | awk 'NR > 1 { print $1 }')
    for name in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
        # It is there already: what follows is a command, or a signal.
        [[ $'\n'$names$'\n' == *$'\n'$name$'\n'* ]] && return 0
    done
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word")
}
complete -F _subuidless_with_names -o bashdefault -o default subuidless
