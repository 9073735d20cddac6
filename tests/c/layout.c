/* Description: sizes and offsets of every struct, at compile time. Included twice: guarded. */
#include "miniflow.h"
#include "miniflow.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
/* A negative array size is an error in every standard. */
#define CHECK(what) typedef char JOIN(check_, __LINE__)[(what) ? 1 : -1]
#define AT(type, field, offset) CHECK(offsetof(type, field) == (offset))

/* Frozen. */
CHECK(sizeof(mf_task_id) == 16);
CHECK(sizeof(mf_completion) == 128);
AT(mf_completion, id, 0);
AT(mf_completion, user_data, 16);
AT(mf_completion, outcome, 24);
AT(mf_completion, code, 28);
AT(mf_completion, flags, 32);
AT(mf_completion, worker, 36);
AT(mf_completion, attempt, 40);
AT(mf_completion, reserved0, 44);
AT(mf_completion, data, 48);
AT(mf_completion, len, 56);
AT(mf_completion, queued_ns, 64);
AT(mf_completion, run_ns, 72);
AT(mf_completion, handle, 80);
AT(mf_completion, reserved, 88);
CHECK(sizeof(mf_class_config) == 32);
AT(mf_class_config, nice, 12);
AT(mf_class_config, scheduler, 24);
AT(mf_class_config, io_priority, 28);
CHECK(sizeof(mf_class_affinity) == 24);
AT(mf_class_affinity, node, 4);
AT(mf_class_affinity, cpus, 8);
AT(mf_class_affinity, count, 16);

/* Growable: fields may be added at the end, none may move. */
CHECK(sizeof(mf_submission) >= 40);
AT(mf_submission, size, 0);
AT(mf_submission, payload, 8);
AT(mf_submission, len, 16);
AT(mf_submission, opts, 24);
AT(mf_submission, user_data, 32);

CHECK(sizeof(mf_submit_opts) >= 64);
AT(mf_submit_opts, size, 0);
AT(mf_submit_opts, task_class, 4);
AT(mf_submit_opts, priority, 8);
AT(mf_submit_opts, flags, 12);
AT(mf_submit_opts, user_data, 16);
AT(mf_submit_opts, label, 24);
AT(mf_submit_opts, deadline_ns, 40);
AT(mf_submit_opts, sticky_key, 48);
AT(mf_submit_opts, max_attempts, 56);
AT(mf_submit_opts, reserved0, 60);

CHECK(sizeof(mf_loan_buf) >= 32);
AT(mf_loan_buf, size, 0);
AT(mf_loan_buf, ptr, 8);
AT(mf_loan_buf, len, 16);
AT(mf_loan_buf, handle, 24);

CHECK(sizeof(mf_engine_stats) >= 152);
AT(mf_engine_stats, size, 0);
AT(mf_engine_stats, degraded, 4);
AT(mf_engine_stats, submitted, 8);
AT(mf_engine_stats, payload_capacity, 144);
AT(mf_engine_stats, policy_failures, 176);

CHECK(sizeof(mf_worker_row) >= 96);
AT(mf_worker_row, size, 0);
AT(mf_worker_row, slot, 4);
AT(mf_worker_row, pid, 8);
AT(mf_worker_row, cpu_permille, 36);
AT(mf_worker_row, incarnation, 40);
AT(mf_worker_row, rss_bytes, 88);

CHECK(sizeof(mf_scaling_decision) >= 256);
AT(mf_scaling_decision, size, 0);
AT(mf_scaling_decision, task_class, 4);
AT(mf_scaling_decision, time_ns, 8);
AT(mf_scaling_decision, action, 16);
AT(mf_scaling_decision, threads, 36);
AT(mf_scaling_decision, queued, 40);
AT(mf_scaling_decision, service_ns, 64);
AT(mf_scaling_decision, cpu_permille, 72);
AT(mf_scaling_decision, memory_permille, 76);
AT(mf_scaling_decision, reason, 80);

CHECK(sizeof(mf_task_info) >= 40);
AT(mf_task_info, size, 0);
AT(mf_task_info, state, 4);
AT(mf_task_info, worker, 8);
AT(mf_task_info, elapsed_ns, 16);
AT(mf_task_info, progress_done, 24);
AT(mf_task_info, progress_total, 32);

CHECK(sizeof(mf_work) >= 72);
AT(mf_work, size, 0);
AT(mf_work, attempt, 4);
AT(mf_work, task, 8);
AT(mf_work, payload, 16);
AT(mf_work, len, 24);
AT(mf_work, user_data, 32);
AT(mf_work, id, 40);
AT(mf_work, label, 56);

CHECK(sizeof(mf_log_record) >= 3712);
AT(mf_log_record, size, 0);
AT(mf_log_record, level, 4);
AT(mf_log_record, time_ns, 8);
AT(mf_log_record, dropped, 16);
AT(mf_log_record, target_len, 24);
AT(mf_log_record, message_len, 28);
AT(mf_log_record, target, 32);
AT(mf_log_record, message, 128);

CHECK(sizeof(mf_zygote_request) >= 16);
AT(mf_zygote_request, size, 0);
AT(mf_zygote_request, incarnation, 8);

CHECK(sizeof(mf_config) >= 336);
AT(mf_config, size, 0);
AT(mf_config, name, 8);
AT(mf_config, handler, 16);
AT(mf_config, handler_user, 24);
AT(mf_config, worker_argv, 32);
AT(mf_config, inherit_fds, 40);
AT(mf_config, classes, 56);
AT(mf_config, max_tasks, 120);
AT(mf_config, payload_arena, 136);
AT(mf_config, spin_ns, 176);
AT(mf_config, dispatch, 208);
AT(mf_config, scaling_interval_ns, 240);
AT(mf_config, scaling_policy, 264);
AT(mf_config, affinity_cpus, 288);
AT(mf_config, recycle_tasks, 304);
AT(mf_config, sandbox, 332);
AT(mf_config, sandbox_memory, 336);
AT(mf_config, sandbox_core, 344);
AT(mf_config, sandbox_files, 352);
AT(mf_config, sandbox_cpu_s, 356);
AT(mf_config, hang_timeout_ns, 376);
AT(mf_config, affinity_node, 384);
AT(mf_config, huge_pages, 388);
AT(mf_config, class_affinity, 392);
AT(mf_config, memory_grow_permille, 440);
AT(mf_config, memory_refuse_permille, 452);

/* The numbers of the contract. */
CHECK(MF_OK == 0 && MF_E_INVALID == -1 && MF_E_WOULD_BLOCK == -2 && MF_E_TIMEOUT == -3);
CHECK(MF_E_TOO_LARGE == -4 && MF_E_NOT_FOUND == -5 && MF_E_CLOSED == -6);
CHECK(MF_E_NO_MEMORY == -7 && MF_E_SYSTEM == -8 && MF_E_UNSUPPORTED == -9);
CHECK(MF_E_INTERNAL == -10);
CHECK(MF_CPU_BOUND == 0 && MF_IO_BOUND == 1);
CHECK(MF_COMPLETED == 0 && MF_FAILED == 1 && MF_CRASHED == 2 && MF_TIMED_OUT == 3);
CHECK(MF_CANCELLED == 4);
CHECK(MF_F_BY_SIGNAL == 1 && MF_F_COLLATERAL == 2 && MF_F_DATA == 4);
CHECK(MF_LOG_OFF == 0 && MF_LOG_ERROR == 1 && MF_LOG_WARN == 2 && MF_LOG_INFO == 3);
CHECK(MF_LOG_DEBUG == 4 && MF_LOG_TRACE == 5);
CHECK(sizeof(mf_class) == 4 && sizeof(mf_outcome) == 4 && (mf_class)-1 < 0);
